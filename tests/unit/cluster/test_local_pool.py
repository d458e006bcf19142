"""The in-process pool sets CPUs and memory aside for exports, as Ray does."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from farm.cluster import local_pool
from farm.core.artifact import (
    ExportRequest,
    ExportResult,
    ModelSource,
    Recipe,
    StageEvent,
    Toolchain,
)
from farm.core.spec import Resources
from farm.core.tasks import ExportTask, HostTask
from tests.unit.core import builders

LIMIT_S = 30.0


def export(name: str, **resources: int) -> ExportTask:
    request = ExportRequest(ModelSource(name), Recipe("r1"), Toolchain("default"))
    return ExportTask(f"export:{name}", request, Resources(**resources))


class Gate:
    """Stands for the work: a task has begun, and ends when it is let go."""

    def __init__(self) -> None:
        self.begun: dict[str, threading.Event] = {}
        self.go: dict[str, threading.Event] = {}
        self.cpus: dict[str, int] = {}
        for name in "abc":
            self.begun[name], self.go[name] = threading.Event(), threading.Event()

    def run(self, task: HostTask, *_: object) -> ExportResult:
        assert isinstance(task, ExportTask)
        name = task.request.model.name
        self.cpus[name] = task.resources.cpus
        self.begun[name].set()
        assert self.go[name].wait(LIMIT_S)
        return builders.export_result()

    async def has_begun(self, name: str) -> None:
        assert await asyncio.to_thread(self.begun[name].wait, LIMIT_S)


def pool(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> local_pool.LocalPool:
    monkeypatch.setattr("farm.tasks.perform.run_task", gate.run)
    return local_pool.LocalPool(Path("/nowhere"), 3, cpus_per_export=1, memory_bytes=100)


def test_exports_that_need_too_much_memory_together_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()

    async def play() -> list[StageEvent]:
        seen: list[StageEvent] = []
        one = pool(gate, monkeypatch)
        first = asyncio.create_task(one.run(export("a", memory_bytes=60), lambda _event: None))
        await gate.has_begun("a")
        second = asyncio.create_task(one.run(export("b", memory_bytes=60), seen.append))
        third = asyncio.create_task(one.run(export("c", memory_bytes=30), lambda _event: None))
        await gate.has_begun("c")  # it was asked for after b, and fits beside a
        assert not gate.begun["b"].is_set()
        gate.go["a"].set()
        await gate.has_begun("b")
        for name in "bc":
            gate.go[name].set()
        await asyncio.gather(first, second, third)
        await one.close()
        return seen

    seen = asyncio.run(play())
    assert [event.name for event in seen] == ["waiting"]
    assert gate.cpus == {"a": 1, "b": 1, "c": 1}


def test_more_than_there_is_gets_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    gate.go["a"].set()

    async def play() -> None:
        one = pool(gate, monkeypatch)
        await one.run(export("a", cpus=64, memory_bytes=10**15), lambda _event: None)
        await one.close()

    asyncio.run(play())
    assert gate.cpus == {"a": 3}
