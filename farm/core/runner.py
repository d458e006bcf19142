"""Runners as values: what a config says of one, its files, and its build for an ABI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from farm.core.artifact import ObjectRef

RunnerKind = Literal[
    "executorch", "executorch-tuned", "executorch_python", "llama_main", "llama_cpp", "command"
]
RUNNER_KINDS: dict[str, RunnerKind] = {kind: kind for kind in get_args(RunnerKind)}
#: farm-runner with code of ours in place of ExecuTorch's; never a default.
TUNED: RunnerKind = "executorch-tuned"
#: What farm builds itself.
OWN_KINDS: tuple[RunnerKind, ...] = ("executorch", TUNED)
#: What a runner loads: an ExecuTorch program, or GGUF weights as they are.
Program = Literal["pte", "gguf"]
#: How the output of a `command` is read; `regex` comes with patterns.
Parse = Literal["pytorch_observer", "jsonl", "regex"]


@dataclass(frozen=True, slots=True)
class DeployFile:
    """A file in a job's work folder, backed by an object of the content store."""

    object: ObjectRef
    #: Path inside the work folder, with forward slashes.
    path: str
    executable: bool = False


@dataclass(frozen=True, slots=True)
class WorkFiles:
    """What one launch finds in its work folder, as paths relative to it."""

    model: str
    #: External weights.
    data: tuple[str, ...] = ()
    #: For runners whose spec says that they read it.
    tokenizer: str | None = None
    #: A folder that exists, for what the runner writes.
    out: str = "."


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """A runner of a run config. Not to be confused with RunnerBuild: its files for one ABI."""

    #: As cells and reports name it.
    name: str
    kind: RunnerKind = "executorch"
    #: The user's files, in the work folder beside the model.
    files: tuple[DeployFile, ...] = ()
    #: Where they lie on the controller's host, in the same order.
    sources: tuple[str, ...] = ()
    #: ABI of its programs, in Android's terms; None for scripts.
    abi: str | None = None
    #: Program and arguments; see runners.command for what stands in braces.
    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    parse: Parse | None = None
    #: `parse: regex` only: figure and pattern.
    patterns: tuple[tuple[str, str], ...] = ()
    #: File with logits that a `command` writes; None when it gives none.
    logits: str | None = None
    #: File with the generated text that a `command` writes; None when it prints it.
    text_file: str | None = None
    #: `executorch_python` only: the device's interpreter that has executorch.
    python: str | None = None
    programs: tuple[Program, ...] = ("pte",)
    #: Backends whose programs it can run, `portable` included; empty: only the device can tell.
    backends: tuple[str, ...] = ()
    #: Whether it gives logits; without them correctness is by its text only.
    gives_logits: bool = True
    #: Whether it reads the tokenizer itself.
    needs_tokenizer: bool = False
    #: Whether one launch measures a whole sweep; others take one prompt and one reply each.
    sweeps: bool = True


#: The runner of cells that name no other.
OWN = RunnerSpec("executorch", backends=("xnnpack", "portable"))


@dataclass(frozen=True, slots=True)
class BuildVariant:
    """Which of several builds of one runner is wanted."""

    #: Bring loader and C library along whatever the device's facts say: its own don't serve.
    own_libc: bool = False
    #: Able to trace every operator, at the price of slower windows.
    profile: bool = False


PLAIN = BuildVariant()


@dataclass(frozen=True, slots=True)
class RunnerBuild:
    """A runner for one ABI: its files and how it is started."""

    name: str
    version: str
    abi: str
    #: Hash over all files: names the binary in reports.
    sha256: str
    files: tuple[DeployFile, ...]
    #: argv of the work folder up to the runner's own arguments, for example
    #: ("./farm-runner",) or a loader with its library path in front.
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    libc: str | None = None
    #: The instruction set it is compiled for, before run-time dispatch.
    isa: str | None = None
    #: Version of the ExecuTorch it was built against; empty where that says nothing.
    executorch: str = ""
    #: Why that isn't the version that was asked for; empty when it is.
    note: str = ""
    #: Why it was built this way, where there are several ways.
    how: str = ""
