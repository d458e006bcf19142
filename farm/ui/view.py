"""The state behind the live view and the plain lines: a pure function of view events.

Knows no terminal and reads no clock: the moment of an event comes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.flow.second import SUFFIX
from farm.core.view import (
    CellDone,
    DeviceNote,
    Preparing,
    RunEnded,
    RunStarted,
    SecondSittings,
    TaskFinished,
    TaskProgress,
    TaskStarted,
    ViewEvent,
)

K = TypeVar("K")
V = TypeVar("V")


#: Stage of a task until it has an export host, or while another does its work.
WAITING = "waiting"
#: Beginning of the stage that comes once per toolchain, before what the estimate is for.
_INSTALLING = "installing"


@dataclass(frozen=True, slots=True)
class TaskView:
    """One host task."""

    kind: str
    name: str
    #: Moment its work started, seconds on the caller's clock: what the estimate counts from.
    started: float
    estimate_s: float | None = None
    stage: str = WAITING
    index: int = 0
    count: int = 0
    detail: str = ""
    done_bytes: int | None = None
    total_bytes: int | None = None
    #: Seconds it took; None while it runs.
    took_s: float | None = None
    cache_hit: bool = False
    error: str | None = None

    @property
    def running(self) -> bool:
        """True until it ended."""
        return self.took_s is None

    def share(self, now: float) -> float | None:
        """How far it is, 0..1: by bytes of a download, else by the estimate, else by stages."""
        if self.done_bytes is not None and self.total_bytes:
            return min(1.0, self.done_bytes / self.total_bytes)
        if self.estimate_s:
            # Never full before it ends: an estimate is no promise.
            return min(0.99, max(0.0, now - self.started) / self.estimate_s)
        return min(1.0, self.index / self.count) if self.count else None


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device that has had a job."""

    name: str
    #: Cell at work; None when idle.
    cell: str | None
    attempt: int
    #: Moment of the latest change of stage.
    since: float
    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    detail: str = ""
    #: When the transfer of the stage began, and the bytes done by then; None outside transfers.
    begun: tuple[float, int] | None = None
    #: Latest rate of each metric in tok/s, in order of appearance.
    rates: Mapping[str, float] = field(default_factory=dict)
    #: Of whole launches: tok/s and the relative half width of its interval, None of too few.
    speeds: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    #: Seconds of its budget that were left at a moment; None where no budget is spent.
    budget: tuple[float, float] | None = None
    #: Degrees Celsius and their limit, None without one.
    heat: tuple[float, float | None] | None = None
    #: Why the latest attempt ended badly; empty when it didn't.
    error: str = ""

    @property
    def share(self) -> float | None:
        """How far the stage is, 0..1; None when its end isn't known."""
        return min(1.0, self.done / self.total) if self.total else None

    def left_s(self, now: float) -> float | None:
        """Seconds left of the budget of its launches; while it cools down the clock stands."""
        if self.budget is None:
            return None
        left_s, at = self.budget
        return max(0.0, left_s - (now - at if self.stage == "measure" else 0.0))

    def transfer(self, now: float) -> tuple[float, float] | None:
        """Bytes a second and seconds left of a transfer; None until there is something to say."""
        if self.begun is None or now <= self.begun[0] or self.done <= self.begun[1]:
            return None
        rate = (self.done - self.begun[1]) / (now - self.begun[0])
        return rate, max(0, self.total - self.done) / rate


@dataclass(frozen=True, slots=True)
class CellView:
    """A cell that ended."""

    cell_id: str
    device: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as people see it. Mappings are never changed in place."""

    run_id: str = ""
    name: str = ""
    folder: str = ""
    started: float = 0.0
    #: Cell id to the place it is planned on.
    cells: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[tuple[str, str], TaskView] = field(default_factory=dict)
    devices: Mapping[str, DeviceView] = field(default_factory=dict)
    done: Mapping[str, CellView] = field(default_factory=dict)
    #: The last line; None while the run goes on.
    line: str | None = None
    #: What goes on before there is a plan, and since when; empty afterwards.
    preparing: str = ""
    since: float = 0.0

    def outcomes(self) -> dict[str, int]:
        """Number of ended cells by outcome, in the order of the truth table."""
        counts = dict.fromkeys(("passed", "failed", "inconclusive", "errored", "skipped"), 0)
        for cell in self.done.values():
            counts[cell.outcome] = counts.get(cell.outcome, 0) + 1
        return {outcome: count for outcome, count in counts.items() if count}


def update(view: RunView, event: ViewEvent, now: float) -> RunView:
    """Return the view after an event that arrived at `now` (seconds on a monotonic clock)."""
    match event:
        case Preparing():
            return replace(view, preparing=event.step, since=now)
        case RunStarted():
            return RunView(event.run_id, event.name, event.folder, now, dict(event.cells))
        case TaskStarted() | TaskProgress() | TaskFinished():
            key = (event.kind, event.name)
            return replace(view, tasks=_with(view.tasks, key, _task(view, event, now)))
        case JobStarted():
            device = DeviceView(event.device, event.job_id, event.attempt, now, stage="start")
            return replace(view, devices=_with(view.devices, event.device, device))
        case JobProgress():
            return replace(
                view, devices=_with(view.devices, event.device, _progress(view, event, now))
            )
        case JobFinished():
            known = view.devices.get(event.device)
            ended = DeviceView(
                event.device,
                None,
                event.attempt,
                now,
                rates={} if known is None else known.rates,
                error="" if event.error is None else event.error.message,
            )
            return replace(view, devices=_with(view.devices, event.device, ended))
        case DeviceNote():
            known = view.devices.get(event.device) or DeviceView(event.device, None, 0, now)
            noted = replace(known, error=event.text)
            return replace(view, devices=_with(view.devices, event.device, noted))
        case CellDone():
            r = event.result
            cell = CellView(r.cell_id, r.device.name, r.outcome, r.reason)
            return replace(view, done=_with(view.done, r.cell_id, cell))
        case SecondSittings():
            again = {cell_id + SUFFIX: view.cells.get(cell_id, "") for cell_id in event.cell_ids}
            return replace(view, cells={**view.cells, **again})
        case RunEnded():
            return replace(view, line=event.line)


def _with(mapping: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    return {**mapping, key: value}


def _task(view: RunView, event: TaskStarted | TaskProgress | TaskFinished, now: float) -> TaskView:
    known = view.tasks.get((event.kind, event.name))
    match event:
        case TaskStarted():
            return TaskView(event.kind, event.name, now, event.estimate_s)
        case TaskProgress():
            task = known or TaskView(event.kind, event.name, now - event.elapsed_s)
            early = known is not None and task.stage.startswith((WAITING, _INSTALLING))
            return replace(
                task,
                started=now if early and event.stage != task.stage else task.started,
                stage=event.stage,
                index=event.index,
                count=event.count,
                detail=event.detail,
                done_bytes=event.done_bytes,
                total_bytes=event.total_bytes,
            )
        case TaskFinished():
            task = known or TaskView(event.kind, event.name, now - event.elapsed_s)
            return replace(
                task, took_s=event.elapsed_s, cache_hit=event.cache_hit, error=event.error
            )


def _progress(view: RunView, event: JobProgress, now: float) -> DeviceView:
    known = view.devices.get(event.device)
    if known is None or known.cell != event.job_id:
        known = DeviceView(event.device, event.job_id, event.attempt, now)
    known = replace(
        known,
        speeds={name: (rate, half) for name, rate, half in event.speeds} or known.speeds,
        budget=None if event.budget is None else (event.budget[1] - event.budget[0], now),
        heat=event.heat,
    )
    rates = known.rates
    if event.rate is not None:
        rates = _with(known.rates, *event.rate)
        if known.stage == event.stage and not event.total:  # what was counted stands
            # A reason to wait is past; what counts stays.
            detail = known.detail if known.unit else ""
            return replace(known, attempt=event.attempt, rates=rates, detail=detail)
    begun = None
    if event.unit == "bytes":
        # After a break the count starts again, with what is still missing as its total.
        same = known.begun is not None and (known.stage, known.total) == (event.stage, event.total)
        begun = known.begun if same and known.done <= event.done else (now, event.done)
    return replace(
        known,
        attempt=event.attempt,
        since=known.since if known.stage == event.stage else now,
        stage=event.stage,
        done=event.done,
        total=event.total,
        unit=event.unit,
        detail=event.detail,
        begun=begun,
        rates=rates,
    )
