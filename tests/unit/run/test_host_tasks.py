"""What history keeps of a host task: its work, without the waits for a host and for others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from farm.core.artifact import BEGUN, ExportRequest, ModelSource, Recipe, StageEvent, Toolchain
from farm.core.tasks import ExportTask, HostTask, HostTaskResult
from farm.core.view import TaskProgress, ViewEvent
from farm.protocols import StageCallback
from farm.run import host_tasks
from tests.unit.core import builders as b
from tests.unit.fakes import FakePool

REQUEST = ExportRequest(ModelSource("m"), Recipe("r"), Toolchain("default"))
#: Each stage of a task, and how long it takes, seconds.
Stages = tuple[tuple[str, float], ...]


def took(monkeypatch: pytest.MonkeyPatch, stages: Stages) -> tuple[float, list[str]]:
    """How long a task takes by the history, after 100 s in a queue; and its stages, as shown."""
    now = [0.0]
    monkeypatch.setattr(host_tasks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    shown: list[ViewEvent] = []

    class Pool(FakePool):
        async def run(
            self, task: HostTask, on_stage: StageCallback, but: frozenset[str] = frozenset()
        ) -> HostTaskResult:
            now[0] += 100.0
            for name, seconds in stages:
                on_stage(StageEvent(name, 0, 0, 0.0))
                now[0] += seconds
            return b.export_result()

    async def run() -> float:
        ended = asyncio.Event()
        failures: list[Exception] = []
        tasks = host_tasks.HostTasks(
            Pool(),
            shown.append,
            lambda task, outcome: None,
            {},
            on_end=lambda end: ended.set(),
            on_failure=failures.append,
        )
        tasks.start(ExportTask("export:m", REQUEST))
        await ended.wait()
        assert not failures
        return tasks.durations_s["export:m"]

    seconds = asyncio.run(run())
    return seconds, [one.stage for one in shown if isinstance(one, TaskProgress)]


@pytest.mark.parametrize(
    ("stages", "seconds"),
    [
        (((BEGUN, 7.0),), 7.0),
        (((BEGUN, 1.0), ("waiting", 50.0), ("load", 7.0)), 7.0),
        (((BEGUN, 1.0), ("installing torch", 50.0), ("load", 7.0)), 7.0),
        ((("waiting", 50.0), (BEGUN, 3.0), ("load", 7.0)), 10.0),
    ],
)
def test_neither_the_wait_for_a_host_nor_for_others_counts(
    monkeypatch: pytest.MonkeyPatch, stages: Stages, seconds: float
) -> None:
    found, shown = took(monkeypatch, stages)
    assert found == seconds
    assert shown == [name for name, _ in stages if name != BEGUN]
