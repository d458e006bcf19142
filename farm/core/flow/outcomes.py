"""Results of cells that ended: judged, errored or skipped. Pure constructors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from farm.core.artifact import ExportResult
from farm.core.device import Device
from farm.core.errors import DeviceUnfit, FarmError, SiteLost, StoreError
from farm.core.events import JobFinished
from farm.core.judgement import Judgement
from farm.core.plan import Cell
from farm.core.result import (
    ArtifactReport,
    AttemptReport,
    CellDevice,
    CellResult,
    EnergyReport,
    ErrorReport,
    MemoryReport,
    Outcome,
    RunnerFile,
    RunnerReport,
)
from farm.core.runtime import DeviceRunResult
from farm.core.tasks import CompareTask
from farm.core.work import NOT_COUNTED

K = TypeVar("K")
V = TypeVar("V")

_NO_ARTIFACT = ArtifactReport(None, None, None)
#: Objects whose reports are kept at most.
_MOST_SHARED = 8192


def error_report(error: FarmError) -> ErrorReport:
    """Turn an error into data; context values that JSON can't hold become text."""
    context: dict[str, Any] = {
        key: value if isinstance(value, str | int | float | bool | None) else str(value)
        for key, value in error.context.items()
    }
    return ErrorReport(type(error).__name__, error.message, context)


def attempt(event: JobFinished, started_at: str | None, error: FarmError | None) -> AttemptReport:
    """Turn the end of a job into data: it ran, or it ended with this error."""
    return AttemptReport(
        n=event.attempt,
        device=event.device,
        started_at=started_at,
        ended_at=event.at,
        outcome="ran" if error is None else "errored",
        error=None if error is None else error_report(error),
    )


def failure_flag(error: FarmError) -> str:
    """Say whose failure ended a cell: its site's, or its device's."""
    of_host = isinstance(error, SiteLost | StoreError) or "host_fault" in error.context
    return "site_failed" if of_host else "device_failed"


def judged(
    cell: Cell,
    device: Device,
    task: CompareTask,
    judgement: Judgement,
    attempts: tuple[AttemptReport, ...],
) -> CellResult:
    """Result of a cell whose device run was compared."""
    build = task.run.runner
    flags, reason = judgement.flags, judgement.reason
    if build.note:
        flags = (*flags, "other_runtime")
        reason = f"{reason}; {build.note}" if reason else build.note
    own_code = _own_code(task.run)
    if any(name.startswith("llama::") for name in own_code or ()):
        flags = (*flags, "own_attention")
    if len(attempts) > 1:
        flags = (*flags, "retried")
    return _result(
        cell,
        device,
        outcome=judgement.outcome,
        reason=reason,
        flags=flags,
        attempts=attempts,
        export=task.export,
        runner=_same_runner(
            name=cell.runner,
            version=build.version,
            sha256=build.sha256,
            libc=build.libc,
            isa=task.run.launches[0].hello.isa if task.run.launches else build.isa,
            backend_requested=task.export.bundle.backend,
            backend_effective=judgement.backend_effective,
            executorch=build.executorch or None,
            how=build.how,
            own_code=own_code,
            files=tuple(
                RunnerFile(file.path, file.object.sha256, file.object.size_bytes)
                for file in build.files
            ),
        ),
        judgement=judgement,
        pushed_bytes=task.run.deployed.pushed_bytes,
        skipped_bytes=task.run.deployed.skipped_bytes,
    )


def _own_code(run: DeviceRunResult) -> tuple[str, ...] | None:
    """What farm's code did in the candidate's launches; None where there was none."""
    launches = [launch for launch in run.launches if launch.arm == "candidate"]
    if not launches:
        return None
    return tuple(sorted({name for launch in launches for name in launch.hello.own_code}))


def errored(
    cell: Cell,
    device: Device,
    error: FarmError,
    flag: str,
    *,
    attempts: tuple[AttemptReport, ...] = (),
    export: ExportResult | None = None,
) -> CellResult:
    """Result of a cell that infrastructure failed; an unfit device makes it skipped."""
    unfit = isinstance(error, DeviceUnfit)
    outcome: Outcome = "skipped" if unfit else "errored"
    return _result(
        cell,
        device,
        outcome=outcome,
        reason=error.message,
        flags=("unfit" if unfit else flag,),
        attempts=attempts,
        export=export,
    )


def skipped(
    cell: Cell,
    device: Device,
    flag: str,
    reason: str,
    *,
    attempts: tuple[AttemptReport, ...] = (),
    export: ExportResult | None = None,
) -> CellResult:
    """Result of a cell that did not run."""
    return _result(
        cell,
        device,
        outcome="skipped",
        reason=reason,
        flags=(flag,),
        attempts=attempts,
        export=export,
    )


def artifact_report(export: ExportResult | None) -> ArtifactReport:
    """Name the deployed files, or nothing when there are none."""
    return _NO_ARTIFACT if export is None else _shared(export, _made_artifact)


def _made_artifact(export: ExportResult) -> ArtifactReport:
    pte, data = export.bundle.pte, export.bundle.data
    return ArtifactReport(
        export.bundle.key,
        pte.sha256,
        pte.size_bytes,
        None if data is None else data.sha256,
        None if data is None else data.size_bytes,
    )


def _result(
    cell: Cell,
    device: Device,
    *,
    outcome: Outcome,
    reason: str,
    flags: tuple[str, ...],
    attempts: tuple[AttemptReport, ...],
    export: ExportResult | None,
    runner: RunnerReport | None = None,
    judgement: Judgement | None = None,
    pushed_bytes: int | None = None,
    skipped_bytes: int | None = None,
) -> CellResult:
    return CellResult(
        cell_id=cell.cell_id,
        job_id=cell.cell_id,
        model=cell.artifact.model,
        recipe=cell.artifact.recipe,
        toolchain=cell.artifact.toolchain,
        artifact=artifact_report(export),
        runner=runner or RunnerReport(name=cell.runner),
        device=_cell_device(device),
        outcome=outcome,
        reason=reason,
        flags=flags,
        attempts=attempts,
        correctness=judgement.correctness if judgement else None,
        performance=judgement.performance if judgement else (),
        memory=judgement.memory if judgement else MemoryReport(None),
        energy=judgement.energy if judgement else EnergyReport(None),
        conditions=judgement.conditions if judgement else {},
        baseline=None,
        work=judgement.work if judgement else NOT_COUNTED,
        correctness_decision=judgement.correctness_decision if judgement else "undecided",
        speed_decision=judgement.speed_decision if judgement else "not gated",
        threads=cell.threads,
        pushed_bytes=pushed_bytes,
        skipped_bytes=skipped_bytes,
        sustained=judgement.sustained if judgement else None,
        launches=judgement.launches if judgement else (),
        answers=judgement.answers if judgement else (),
    )


#: Reports of devices and artifacts by what they are of: thousands of results share each.
_SHARED: dict[int, tuple[object, object]] = {}


def _shared(of: K, make: Callable[[K], V]) -> V:
    """Return what was made of this very object before, or make it."""
    known = _SHARED.get(id(of))
    if known is None or known[0] is not of:
        if len(_SHARED) >= _MOST_SHARED:
            _SHARED.clear()
        known = _SHARED[id(of)] = (of, make(of))
    made: V = known[1]  # type: ignore[assignment]
    return made


#: Reports of runners, each by itself: results of one build share one.
_RUNNERS: dict[RunnerReport, RunnerReport] = {}


def _same_runner(**fields: Any) -> RunnerReport:
    made = RunnerReport(**fields)
    if len(_RUNNERS) >= _MOST_SHARED:
        _RUNNERS.clear()
    return _RUNNERS.setdefault(made, made)


def _cell_device(device: Device) -> CellDevice:
    return _shared(device, _made_device)


def _made_device(device: Device) -> CellDevice:
    facts = device.facts
    return CellDevice(
        name=device.name,
        identity=facts.identity if facts else None,
        transport=device.entry.transport,
        abi=facts.abi if facts else None,
        soc=facts.soc if facts else None,
        cores=facts.cores if facts else None,
        ram_bytes=facts.ram_bytes if facts else None,
        os=facts.os if facts else None,
        emulated=facts.emulated if facts else None,
        os_build=facts.os_build if facts else None,
    )
