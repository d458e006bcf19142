from __future__ import annotations

import asyncio
import threading

from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.site.agent.outbox import PROGRESS_KEPT, Outbox
from tests.unit.core.builders import attempt_id


def started(name: str) -> JobStarted:
    return JobStarted(attempt_id(name), "d", "now")


def progress(done: int) -> JobProgress:
    return JobProgress(attempt_id("j"), "d", "deploy", done)


def test_numbers_grow_by_one_and_stay_until_acknowledged() -> None:
    box = Outbox()
    for name in "abc":
        box.append(started(name))
    assert [item.seq for item in box.after(0)] == [1, 2, 3]
    assert [item.seq for item in box.after(0)] == [1, 2, 3]
    assert [item.seq for item in box.after(2)] == [3]
    assert [item.seq for item in box.after(0)] == [3]
    box.append(started("d"))
    assert [item.seq for item in box.after(3)] == [4]


def test_wait_is_woken_from_another_thread() -> None:
    async def scenario() -> None:
        box = Outbox()
        timer = threading.Timer(0.1, box.append, [started("a")])
        timer.start()
        found = await asyncio.wait_for(box.wait(0, 30.0), 5.0)
        assert [item.seq for item in found] == [1]

    asyncio.run(scenario())


def test_wait_ends_without_events_and_forgets_its_waiter() -> None:
    async def scenario() -> None:
        box = Outbox()
        assert await box.wait(0, 0.05) == []
        assert await box.wait(0, 0.0) == []
        assert box._waiters == []

    asyncio.run(scenario())


def test_two_waiters_are_both_woken() -> None:
    async def scenario() -> None:
        box = Outbox()
        waits = [asyncio.create_task(box.wait(0, 30.0)) for _ in range(2)]
        await asyncio.sleep(0.02)
        box.append(started("a"))
        found = await asyncio.wait_for(asyncio.gather(*waits), 5.0)
        assert [len(items) for items in found] == [1, 1]

    asyncio.run(scenario())


def test_only_progress_is_ever_dropped() -> None:
    box = Outbox()
    box.append(JobFinished(attempt_id("j"), "d", "now", None, None))
    for done in range(PROGRESS_KEPT + 50):
        box.append(progress(done))
    kept = box.after(0)
    assert len(kept) == PROGRESS_KEPT
    assert isinstance(kept[0].event, JobFinished)
    assert kept[-1].seq == PROGRESS_KEPT + 51
