"""Work for export hosts: any machine with a CPU, no device needed. Plain, picklable requests.

Each kind has one function in farm.cluster.tasks, which Ray and the in-process pool both call.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.artifact import (
    Bundle,
    ExportRequest,
    ExportResult,
    LogitsPass,
    Recipe,
    ReferenceRequest,
    ReferenceResult,
)
from farm.core.device import Device
from farm.core.result import Judgement
from farm.core.runtime import DeviceRunResult, HostRunResult
from farm.core.spec import RunSpec


@dataclass(frozen=True, slots=True)
class ExportTask:
    """Make, or find in the store, one artifact."""

    task_id: str
    request: ExportRequest


@dataclass(frozen=True, slots=True)
class ReferenceTask:
    """Tokenise the text and compute eager logits."""

    task_id: str
    request: ReferenceRequest


@dataclass(frozen=True, slots=True)
class HostRunTask:
    """Run the artifact on this host: its logits, and its noise floor."""

    task_id: str
    bundle: Bundle
    runner: str
    tokens: tuple[int, ...]
    passes: tuple[LogitsPass, ...]
    executorch: str = ""


@dataclass(frozen=True, slots=True)
class CompareTask:
    """Judge one finished device run."""

    task_id: str
    spec: RunSpec
    device: Device
    threads: int
    runner: str
    recipe: Recipe
    export: ExportResult
    reference: ReferenceResult
    #: None where no export host can run the artifact (another runner or backend).
    host: HostRunResult | None
    run: DeviceRunResult


HostTask = ExportTask | ReferenceTask | HostRunTask | CompareTask
HostTaskResult = ExportResult | ReferenceResult | HostRunResult | Judgement

#: Name of each kind, for people and for history.
KIND_NAMES: dict[type[HostTask], str] = {
    ExportTask: "export",
    ReferenceTask: "reference",
    HostRunTask: "host_run",
    CompareTask: "compare",
}
