"""Scripted events of a run, for the live view and the plain lines."""

from __future__ import annotations

from farm.core.errors import DeviceLost
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.view import (
    CellDone,
    RunEnded,
    RunStarted,
    TaskFinished,
    TaskProgress,
    TaskStarted,
    ViewEvent,
)
from tests.unit.core.builders import attempt_id
from tests.unit.reports.builders import ARTIFACT, results

EXPORT = str(ARTIFACT)


def cell_id(device: str) -> str:
    return f"{ARTIFACT}:executorch:auto:{device}"


def started(devices: tuple[str, ...] = ("local", "s24")) -> RunStarted:
    return RunStarted("20260102-x", "llama-q4", tuple((cell_id(d), d) for d in devices), "runs/x")


def stage(name: str, index: int, elapsed_s: float = 1.0) -> TaskProgress:
    return TaskProgress("export", EXPORT, name, index, 6, elapsed_s)


def progress(
    device: str, stage: str, done: int = 0, total: int = 0, unit: str = "", **extra: object
) -> JobProgress:
    return JobProgress(attempt_id(cell_id(device)), device, stage, done, total, unit, **extra)  # type: ignore[arg-type]


def lost(device: str) -> JobFinished:
    error = DeviceLost(f"{device}: the cable was pulled", device=device)
    return JobFinished(attempt_id(cell_id(device)), device, "t", None, error)


def script() -> list[ViewEvent]:
    done = {result.device.name: result for result in results()}
    return [
        started(),
        TaskStarted("export", EXPORT, 90.0),
        stage("download", 1),
        stage("download", 1),
        stage("lower", 5),
        TaskFinished("export", EXPORT, 84.2, cache_hit=False),
        TaskStarted("reference", EXPORT),
        TaskFinished("reference", EXPORT, 0.1, cache_hit=True),
        JobStarted(attempt_id(cell_id("local")), "local", "t"),
        JobStarted(attempt_id(cell_id("s24")), "s24", "t"),
        progress("local", "deploy", 0, 105 << 20, "bytes"),
        progress("local", "deploy", 50 << 20, 105 << 20, "bytes"),
        progress("local", "measure", 1, 3, "launches", rate=("pp64", 322.0)),
        progress("local", "measure", 2, 3, "launches", rate=("tg32", 80.4)),
        lost("s24"),
        JobFinished(attempt_id(cell_id("local")), "local", "t", None, None),
        CellDone(done["local"]),
        CellDone(done["s23"]),
        RunEnded("2/2 judged: 1 passed, 1 failed -> exit 1", 1),
    ]
