"""Runners: what starts a model on a device and how its output is read."""

from __future__ import annotations

from collections.abc import Callable

from farm.core.runner import OWN, RunnerSpec
from farm.protocols import Runner
from farm.registry import Registry

#: Runner kind to the function that makes one. A new kind is one file and one line here.
RUNNERS: Registry[Callable[[RunnerSpec], Runner]] = Registry(
    "runner",
    {
        "executorch": "runners.executorch:ExecutorchRunner",
        "executorch-tuned": "runners.executorch:ExecutorchRunner",
        "executorch_python": "runners.executorch_python:ExecutorchPythonRunner",
        "llama_main": "runners.llama_main:LlamaMainRunner",
        "llama_cpp": "runners.llama_cpp:LlamaCppRunner",
        "command": "runners.command:CommandRunner",
    },
)


def find(spec: RunnerSpec = OWN) -> Runner:
    """Make a runner.

    Raises:
        ConfigError: The description lacks what its kind needs; `key` says which part.
    """
    return RUNNERS.get(spec.kind)(spec)
