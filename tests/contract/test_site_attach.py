"""Controllers come, leave and come back: what an agent has of a run, and whose jobs are whose."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.errors import Interrupted, SiteLost
from farm.core.events import JobEvent, JobFinished, JobStarted
from farm.core.runtime import AttemptId, DeviceJob
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD


class Counted:
    """A bench whose jobs count how often their model ran; its agent keeps what it has."""

    def __init__(self, folder: Path, bench: SiteBench | None = None) -> None:
        self.count = folder / "count"
        self.bench = bench or SiteBench(folder, outboxes=folder / "outboxes")

    def job(self, before: str = "", **changes: object) -> DeviceJob:
        return self.bench.job(f"echo ran >> {self.count}; {before} {GOOD}", **changes)  # type: ignore[arg-type]

    @property
    def ran(self) -> int:
        return len(self.count.read_text().split()) if self.count.exists() else 0

    async def until_ran(self, times: int = 1) -> None:
        async with asyncio.timeout(30):
            while self.ran < times:
                await asyncio.sleep(0.02)

    async def until_ended(self) -> None:
        async with asyncio.timeout(30):
            agent = self.bench.agent
            while agent._jobs or any(session.busy for session in agent._sessions.values()):
                await asyncio.sleep(0.02)

    async def new_agent(self) -> None:
        """The next agent of this host; the old one's threads have ended with it."""
        await self.bench.agent.close()
        self.bench.agent = self.bench.new_agent()
        self.bench.seq = 0


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


async def finished(bench: SiteBench) -> JobFinished:
    last = (await bench.events())[-1]
    assert isinstance(last, JobFinished)
    return last


def test_what_ended_before_the_agent_did_is_delivered_and_not_run_again(counted: Counted) -> None:
    async def scenario() -> None:
        bench, job = counted.bench, counted.job()
        first = await bench.agent.attach("run-1", 1)
        await bench.start(job)
        await counted.until_ended()
        await counted.new_agent()

        attached = await bench.agent.attach("run-1", 1)
        assert attached.boot_id != first.boot_id
        assert attached.jobs == (job.attempt_id,)
        answer = await bench.agent.poll("run-1", 99, 0.0, first.boot_id)
        assert (answer.boot_id, answer.events) == (attached.boot_id, ())
        with pytest.raises(SiteLost, match="started anew"):
            await bench.agent.submit([job], first.boot_id)
        await bench.start(job)  # a controller that never heard that it was taken
        event = await finished(bench)
        assert (event.attempt_id, event.error) == (job.attempt_id, None)
        assert counted.ran == 1

        await bench.agent.detach("run-1")
        await counted.new_agent()
        assert (await bench.agent.attach("run-1", 1)).jobs == ()
        await bench.agent.close()

    asyncio.run(scenario())


def test_a_job_that_ran_when_the_agent_ended_is_not_there_any_more(counted: Counted) -> None:
    async def scenario() -> None:
        bench = counted.bench
        await bench.start(counted.job("sleep 100;"))
        await counted.until_ran()
        bench.agent._runs.close()  # as a kill: nothing more is written
        await counted.new_agent()
        assert (await bench.agent.attach("run-1", 1)).jobs == ()
        await bench.agent.close()

    asyncio.run(scenario())


def test_a_resumed_run_gets_the_result_that_nobody_took(counted: Counted) -> None:
    async def scenario() -> None:
        bench, job = counted.bench, counted.job()
        await bench.start(job)
        await counted.until_ended()
        await counted.new_agent()
        await bench.agent.attach("run-1", 2)
        assert await bench.polled(0.0) == ()
        again = replace(job, epoch=2)
        await bench.start(again)
        event = await finished(bench)
        assert (event.attempt_id, event.error) == (AttemptId("run-1", 2, "cell:a", 1), None)
        assert event.result is not None
        assert counted.ran == 1
        await bench.agent.close()

    asyncio.run(scenario())


def test_a_resumed_run_goes_on_with_the_job_that_runs(counted: Counted) -> None:
    async def scenario() -> None:
        bench, job = counted.bench, counted.job("sleep 1;")
        await bench.start(job)
        await counted.until_ran()
        assert (await bench.agent.attach("run-1", 2)).jobs == ()
        again = replace(job, epoch=2)
        await bench.agent.submit([again])
        assert (await bench.agent.attach("run-1", 2)).jobs == (again.attempt_id,)
        events = [e for e in await bench.events() if isinstance(e, JobEvent)]
        assert isinstance(events[0], JobStarted)
        assert {event.attempt_id for event in events} == {again.attempt_id}
        assert counted.ran == 1
        await bench.agent.close()

    asyncio.run(scenario())


def test_other_work_of_a_resumed_run_does_not_wait_for_the_old_one(counted: Counted) -> None:
    async def scenario() -> None:
        bench = counted.bench
        await bench.start(counted.job("sleep 100;"))
        await counted.until_ran()
        await bench.agent.attach("run-1", 2)
        await bench.agent.submit([counted.job(epoch=2, name="cell:b")])
        event = None
        async with asyncio.timeout(40):
            while event is None or event.attempt_id.epoch != 2:
                event = await finished(bench)
        assert (event.job_id, event.error) == ("cell:b", None)
        await bench.agent.close()

    asyncio.run(scenario())


def test_one_attempt_runs_once_however_often_it_is_submitted(counted: Counted) -> None:
    async def scenario() -> None:
        bench, job = counted.bench, counted.job()
        await bench.start(job, job)
        await bench.agent.submit([job])
        event = await finished(bench)
        await bench.agent.submit([job])  # while its result is not acknowledged
        await counted.until_ended()
        assert event.error is None
        assert counted.ran == 1
        await bench.agent.close()

    asyncio.run(scenario())


def test_two_runs_have_nothing_to_do_with_each_other(counted: Counted) -> None:
    """The same job ids, and two controllers: neither ends or acknowledges anything of the other."""

    async def scenario() -> None:
        bench, agent = counted.bench, counted.bench.agent
        mine, theirs = counted.job("sleep 1;"), counted.job(run_id="run-2")
        await bench.start(mine, theirs)
        await counted.until_ran()
        attached = await agent.attach("run-1", 1)
        assert attached.jobs == (mine.attempt_id,)
        assert attached.others == (("here", "run-2"),)
        await agent.cancel("run-1", ["cell:a"])
        event = await finished(bench)
        assert isinstance(event.error, Interrupted)
        await agent.detach("run-1")
        await counted.until_ended()
        others = (await agent.poll("run-2", 0, 0.0)).events
        assert isinstance(others[-1].event, JobFinished)
        assert others[-1].event.error is None
        assert {
            item.event.attempt_id.run_id for item in others if isinstance(item.event, JobEvent)
        } == {"run-2"}
        await agent.close()

    asyncio.run(scenario())


def test_each_controller_has_a_heartbeat_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, orphan_grace_s=1.0)
        gone, polled = bench.job("sleep 100"), bench.job(f"sleep 3; {GOOD}", run_id="run-2")
        await bench.start(gone, polled)
        after, ended = 0, None
        async with asyncio.timeout(40):
            while ended is None:
                for item in (await bench.agent.poll("run-2", after, 0.3)).events:
                    after = item.seq
                    ended = item.event if isinstance(item.event, JobFinished) else None
        assert ended.error is None
        event = await finished(bench)
        assert isinstance(event.error, Interrupted)
        assert "no controller" in event.error.message
        await bench.agent.close()

    asyncio.run(scenario())
