"""Work for export hosts: any machine with a CPU, no device needed. Plain, picklable requests.

Each kind has one function in farm.tasks.perform, which Ray and the in-process pool both call.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from farm.core.artifact import (
    Bundle,
    CanaryProgram,
    ExportRequest,
    ExportResult,
    LogitsPass,
    Recipe,
    ReferenceRequest,
    ReferenceResult,
    Sdk,
)
from farm.core.device import Device
from farm.core.hostrun import HostRunResult
from farm.core.result import Judgement
from farm.core.runner import OWN, RunnerSpec
from farm.core.runtime import DeviceRunResult
from farm.core.spec import Resources, RunSpec


@dataclass(frozen=True, slots=True)
class ExportTask:
    """Make, or find in the store, one artifact."""

    task_id: str
    request: ExportRequest
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True)
class ReferenceTask:
    """Tokenise the text and compute eager logits."""

    task_id: str
    request: ReferenceRequest
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True)
class HostRunTask:
    """Run the artifact on this host: its logits, and its noise floor."""

    task_id: str
    bundle: Bundle
    tokens: tuple[int, ...]
    passes: tuple[LogitsPass, ...]
    sdk: Sdk = field(default_factory=Sdk)
    #: One of those that farm builds itself.
    runner: RunnerSpec = OWN


@dataclass(frozen=True, slots=True)
class CompareTask:
    """Judge one finished device run."""

    task_id: str
    spec: RunSpec
    device: Device
    threads: int
    runner: RunnerSpec
    recipe: Recipe
    export: ExportResult
    reference: ReferenceResult
    #: None where no export host can run the artifact (another runner or backend).
    host: HostRunResult | None
    run: DeviceRunResult
    #: What the device's canary is judged by; None where there is none.
    canary: CanaryProgram | None = None
    #: How to get eager logits for the device's answer, where text is all that it gives.
    answer: ReferenceTask | None = None


@dataclass(frozen=True, slots=True)
class CanaryTask:
    """Make, or find in the store, the program that checks the kernels of every device."""

    task_id: str
    resources: Resources = field(default_factory=Resources)


HostTask = ExportTask | ReferenceTask | HostRunTask | CompareTask | CanaryTask
HostTaskResult = ExportResult | ReferenceResult | HostRunResult | Judgement | CanaryProgram

#: Name of each kind, for people and for history.
KIND_NAMES: dict[type[HostTask], str] = {
    ExportTask: "export",
    ReferenceTask: "reference",
    HostRunTask: "host_run",
    CompareTask: "compare",
    CanaryTask: "canary",
}
