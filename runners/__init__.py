"""Runners: what starts a model on a device and how its output is read."""

from __future__ import annotations

from collections.abc import Callable

from farm.protocols import Runner
from farm.registry import Registry

#: Runner name to the function that makes one. A new runner is one file and one line here.
RUNNERS: Registry[Callable[[], Runner]] = Registry(
    "runner",
    {
        "executorch": "runners.executorch:ExecutorchRunner",
    },
)


def find(name: str) -> Runner:
    """Make a runner.

    Raises:
        UnknownName: No runner has that name; the message lists those that exist.
    """
    return RUNNERS.get(name)()
