"""A device that several want: the queue at its agent, people, and runs with another agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.commands.hold import hold_device, release_device
from farm.core.errors import Interrupted, LeaseError
from farm.core.events import JobFinished, JobProgress, JobStarted, SiteEvent
from farm.core.lease import LeaseOwner
from farm.core.runtime import DeviceJob
from farm.site.agent.agent import SiteAgent
from farm.site.device import turns
from farm.site.device.connection import Connection
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD
from tests.pace import slack


def gated(folder: Path, name: str) -> str:
    """A model that goes on when a file is there."""
    return f'while ! test -e "{folder}/{name}"; do sleep 0.1; done\n{GOOD}'


class Heard:
    """What an agent tells several runs, in the order in which each heard it."""

    def __init__(self, agent: SiteAgent, *run_ids: str) -> None:
        self._agent, self._run_ids = agent, run_ids
        self.events: dict[str, list[SiteEvent]] = {run_id: [] for run_id in run_ids}
        self._after = dict.fromkeys(run_ids, 0)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30 * slack()):
            while not holds():
                for run_id in self._run_ids:
                    for item in (await self._agent.poll(run_id, self._after[run_id], 0.05)).events:
                        self._after[run_id] = item.seq
                        self.events[run_id].append(item.event)

    def told(self, run_id: str) -> list[str]:
        """Its places in the queue."""
        found = [e for e in self.events[run_id] if isinstance(e, JobProgress)]
        return [event.detail for event in found if event.stage == "queue"]

    def says(self, run_id: str, word: str) -> bool:
        """Whether progress told of a stage, or of something in its detail."""
        found = [e for e in self.events[run_id] if isinstance(e, JobProgress)]
        return any(event.stage == word or word in event.detail for event in found)

    def ended(self, run_id: str) -> list[JobFinished]:
        return [event for event in self.events[run_id] if isinstance(event, JobFinished)]


def test_jobs_of_several_runs_wait_by_priority_then_arrival(
    bench: SiteBench, tmp_path: Path
) -> None:
    ids = ("first", "second", "urgent", "third")

    def job(run_id: str, priority: int = 0) -> DeviceJob:
        return bench.job(gated(tmp_path, run_id), run_id=run_id, priority=priority)

    async def scenario() -> None:
        heard = Heard(bench.agent, *ids)
        await bench.start(job("first"))
        await heard.until(lambda: any(isinstance(e, JobStarted) for e in heard.events["first"]))
        await bench.agent.submit([job("second"), job("third")])
        await bench.agent.submit([job("urgent", priority=5)])
        await heard.until(lambda: heard.told("third")[-1:] == ["2 jobs before it; now: run first"])
        assert heard.told("urgent") == ["next; now: run first"]
        (device,) = await bench.agent.inventory([bench.local], adb_auto=False)
        assert [(one.run_id, one.owner, one.job_id, one.priority) for one in device.queue] == [
            ("urgent", None, "cell:a", 5),
            ("second", None, "cell:a", 0),
            ("third", None, "cell:a", 0),
        ]
        assert all(0 <= one.waits_s < 60 * slack() for one in device.queue)
        await bench.agent.cancel("second", ["cell:a"])
        await heard.until(lambda: heard.told("third")[-1:] == ["1 job before it; now: run first"])
        (cancelled,) = heard.ended("second")
        assert isinstance(cancelled.error, Interrupted)
        for run_id in ids:
            (tmp_path / run_id).touch()
        await heard.until(lambda: all(heard.ended(run_id) for run_id in ids))
        assert all(heard.ended(run_id)[0].error is None for run_id in ("first", "urgent", "third"))
        begun = [
            (event.at, run_id)
            for run_id in ids
            for event in heard.events[run_id]
            if isinstance(event, JobStarted)
        ]
        assert [run_id for _, run_id in sorted(begun)] == ["first", "urgent", "third"]
        for run_id in ("urgent", "third"):
            kinds = [type(event) for event in heard.events[run_id]]
            places = [getattr(e, "stage", "") == "queue" for e in heard.events[run_id]]
            assert not any(places[kinds.index(JobStarted) :]), "told of its place after its start"
        await bench.agent.close()

    asyncio.run(scenario())


def test_a_person_waits_for_one_job_at_most(bench: SiteBench, tmp_path: Path) -> None:
    async def scenario() -> None:
        heard = Heard(bench.agent, "night")
        jobs = [
            bench.job(gated(tmp_path, "go"), name=f"cell:{n}", run_id="night") for n in range(3)
        ]
        await bench.start(jobs[0])
        await heard.until(lambda: heard.says("night", "check"))
        await bench.agent.submit(jobs[1:])
        me = "ann@desk"
        holding = asyncio.create_task(
            asyncio.to_thread(hold_device, bench.home, bench.local, 60.0, "battery", me, 60.0)
        )
        connection = Connection(bench.local, bench.home)
        async with asyncio.timeout(30 * slack()):
            while not await asyncio.to_thread(connection.helper.waiting):
                await asyncio.sleep(0.1)
        (device,) = await bench.agent.inventory([bench.local], adb_auto=False)
        places = [(one.run_id, one.owner) for one in device.queue]
        assert places == [("hold", me), ("night", None), ("night", None)], "a person goes first"
        (tmp_path / "go").touch()
        await heard.until(lambda: len(heard.ended("night")) == 3)
        held = await holding
        assert held.owner == me
        first, *others = heard.ended("night")
        assert first.error is None
        for event in others:  # they ask again later, as the flow says
            assert isinstance(event.error, LeaseError)
            assert "held by ann@desk: battery" in event.error.message
        release_device(bench.home, bench.local, None, me)
        connection.close()
        await bench.agent.close()

    asyncio.run(scenario())


def test_runs_of_two_agents_take_turns(
    bench: SiteBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has had the device lets the other go first, also when it has more to do."""
    monkeypatch.setattr(turns, "GIVE_WAY_S", 30.0 * slack())

    async def scenario() -> None:
        heard = Heard(bench.agent, "ours")
        model = gated(tmp_path, "go")
        jobs = [bench.job(model, name=f"cell:{n}", run_id="ours") for n in range(2)]

        await bench.start(*jobs)
        await heard.until(lambda: heard.says("ours", "check"))
        connection = Connection(bench.local, bench.home)
        theirs = LeaseOwner("ci@rack", "theirs", 1)
        with pytest.raises(LeaseError):
            connection.helper.take_lease(theirs)
        (tmp_path / "go").touch()
        await heard.until(lambda: heard.says("ours", "lets others go first: ci@rack waits since"))
        connection.helper.take_lease(theirs)
        await heard.until(lambda: len(heard.ended("ours")) == 2)
        first, second = heard.ended("ours")
        assert first.error is None
        assert isinstance(second.error, LeaseError)
        assert "leased by ci@rack for run theirs" in second.error.message
        connection.helper.release_lease(theirs)
        connection.close()
        await bench.agent.close()

    asyncio.run(scenario())


def test_who_asked_and_left_is_given_way_to_once(
    bench: SiteBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "GIVE_WAY_S", 0.6)

    async def scenario() -> None:
        connection = Connection(bench.local, bench.home)
        heard = Heard(bench.agent, "ours")
        connection.helper.take_lease(LeaseOwner("x", "x", 1))
        with pytest.raises(LeaseError):
            connection.helper.take_lease(LeaseOwner("ci@rack", "theirs", 1))
        connection.helper.release_lease(LeaseOwner("x", "x", 1))
        await bench.start(*(bench.job(GOOD, name=f"cell:{n}", run_id="ours") for n in range(4)))
        await heard.until(lambda: len(heard.ended("ours")) == 4)
        assert all(event.error is None for event in heard.ended("ours"))
        waited = {
            event.job_id
            for event in heard.events["ours"]
            if isinstance(event, JobProgress) and "lets others go first" in event.detail
        }
        assert waited == {"cell:1"}, "the first had no job before it, the others know"
        connection.close()
        await bench.agent.close()

    asyncio.run(scenario())
