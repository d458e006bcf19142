"""A site whose agent ends and comes back, while a run goes on. No Ray, no device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from farm.core.artifact import ObjectRef
from farm.core.device import Device, DeviceEntry
from farm.core.errors import FarmError, PlanError, SiteLost, StoreError
from farm.core.events import Attached, DeviceChanged, JobFinished, JobProgress, Numbered
from farm.core.flow import jobs as flow_module
from farm.core.runtime import DeviceJob, DeviceRunResult
from farm.core.view import DeviceNote
from farm.protocols import PROBE_LIMIT_S, ByteProgress
from farm.run import site_link
from farm.run.job_data import needed_objects
from tests.unit.core import builders as b
from tests.unit.fakes import AT, FakeSite
from tests.unit.run.test_controller import Bench, always_runs


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "RETRY_PAUSE_S", 0.01)
    monkeypatch.setattr(site_link, "_POLL_PAUSE_S", 0.01)


class Restarting(FakeSite):
    """Leaves the first jobs running, until it is started anew."""

    def __init__(self) -> None:
        super().__init__(lambda job: b.run_result() if self.boot_id != "boot-1" else None)
        self.asked: list[str] = []
        self.taken: list[DeviceJob] = []

    async def submit(self, jobs: Sequence[DeviceJob], boot_id: str = "") -> None:
        await super().submit(jobs, boot_id)
        self.taken += jobs

    async def inventory(
        self,
        entries: Sequence[DeviceEntry],
        *,
        adb_auto: bool,
        limit_s: float = PROBE_LIMIT_S,
        recover: bool = False,
    ) -> list[Device]:
        self.asked += [entry.name for entry in entries]
        return await super().inventory(entries, adb_auto=adb_auto)


def play(
    bench: Callable[[], Bench], act: Callable[[Bench], None], when: Callable[[], bool]
) -> Bench:
    """Run to the end; `act` happens once `when` holds."""

    async def scenario() -> Bench:
        made = bench()
        running = asyncio.create_task(made.run())
        async with asyncio.timeout(5):
            while not when():
                await asyncio.sleep(0.005)
            act(made)
            assert await running is None
        return made

    return asyncio.run(scenario())


def outcomes(bench: Bench) -> dict[str, list[str]]:
    return {
        result.device.name: [attempt.outcome for attempt in result.attempts]
        for result in bench.flow.results.values()
    }


def test_jobs_that_a_new_agent_does_not_have_run_again(tmp_path: Path) -> None:
    site = Restarting()
    bench = play(
        lambda: Bench(tmp_path, site), lambda _: site.restart("boot-2"), lambda: len(site.jobs) == 2
    )
    assert {r.outcome for r in bench.flow.results.values()} == {"passed"}
    assert outcomes(bench) == {"a": ["errored", "ran"], "b": ["errored", "ran"]}
    assert [job.attempt for job in site.taken] == [1, 1, 2, 2]
    assert bench.alarms == ["the agent of site local was started anew; jobs lost: 2"]
    assert sorted(site.asked) == ["a", "b"], "the new agent is told the devices"
    assert bench.flow.dropped == {}
    # It says nothing against the devices.
    assert all(device.usable for device in bench.flow.devices)


def test_what_a_new_agent_has_kept_is_taken_and_not_run_again(tmp_path: Path) -> None:
    site = Restarting()

    def restart(_: Bench) -> None:
        kept = [
            Numbered(1, JobFinished(job.attempt_id, job.device, AT, b.run_result(), None))
            for job in site.jobs
            if job.device == "a"
        ]
        site.restart("boot-2", keep=kept)

    bench = play(lambda: Bench(tmp_path, site), restart, lambda: len(site.jobs) == 2)
    assert outcomes(bench) == {"a": ["ran"], "b": ["errored", "ran"]}
    assert [job.device for job in site.taken] == ["a", "b", "b"]
    assert bench.alarms == ["the agent of site local was started anew; jobs lost: 1"]


def test_a_job_on_its_way_is_sent_to_the_new_agent_and_costs_no_attempt(tmp_path: Path) -> None:
    class Slow(Restarting):
        def __init__(self) -> None:
            super().__init__()
            self.gate = asyncio.Event()
            self.waiting = 0

        async def ensure(
            self, refs: Sequence[ObjectRef], source: str, progress: ByteProgress | None = None
        ) -> tuple[str, ...]:
            assert progress is not None
            progress(7)
            self.waiting += 1
            await self.gate.wait()
            return ("model.pte: 1 damaged chunks came from rack1; asked for again",)

    site = Slow()

    def restart(_: Bench) -> None:
        site.restart("boot-2")
        site.gate.set()

    bench = play(lambda: Bench(tmp_path, site), restart, lambda: site.waiting == 2)
    assert outcomes(bench) == {"a": ["ran"], "b": ["ran"]}
    assert (
        "site local: model.pte: 1 damaged chunks came from rack1; asked for again" in bench.alarms
    )
    shown = [e for e in bench.seen if isinstance(e, JobProgress)]
    assert {(e.stage, e.done, e.unit) for e in shown} == {("transfer", 7, "bytes")}


def test_a_lost_site_fails_jobs_that_wait_for_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_link, "SITE_LOST_S", 0.1)

    class Gone(FakeSite):
        async def attach(self, run_id: str, epoch: int) -> Attached:
            raise SiteLost("its node is gone")

    bench = play(lambda: Bench(tmp_path, Gone(always_runs)), lambda _: None, lambda: True)
    results = bench.flow.results.values()
    assert {r.outcome for r in results} == {"errored"}
    assert all("site local was lost: not reached" in str(r.reason) for r in results)


def test_a_full_disk_of_a_site_is_no_fault_of_its_devices(tmp_path: Path) -> None:
    class Full(FakeSite):
        async def ensure(
            self, refs: Sequence[ObjectRef], source: str, progress: ByteProgress | None = None
        ) -> tuple[str, ...]:
            raise StoreError("no space for the content store in /x: 7 bytes free")

    bench = play(lambda: Bench(tmp_path, Full(always_runs)), lambda _: None, lambda: True)
    assert {r.outcome for r in bench.flow.results.values()} == {"errored"}
    assert all("no space" in str(r.reason) for r in bench.flow.results.values())
    assert all(device.usable for device in bench.flow.devices)
    assert bench.controller._care.incidents == []


def test_jobs_of_others_are_left_alone_and_shown(tmp_path: Path) -> None:
    site = FakeSite(always_runs)
    site.others = (("phone", "their-run"),)
    bench = play(lambda: Bench(tmp_path, site), lambda _: None, lambda: True)
    assert DeviceNote("phone", "works for run their-run") in bench.seen
    assert site.cancelled == []
    assert site.detached == ["r"]


def test_what_did_not_come_here_is_an_alarm_and_the_run_goes_on(tmp_path: Path) -> None:
    class Cut(FakeSite):
        async def collect(self, refs: Sequence[ObjectRef]) -> tuple[str, ...]:
            raise StoreError("could not be brought")

        def _finish(
            self, job: DeviceJob, result: DeviceRunResult | None, error: FarmError | None
        ) -> None:
            log = ObjectRef("0" * 64, 3, "launch-0.stdout")
            self._say(JobFinished(job.attempt_id, job.device, AT, result, error, logs=(log,)))

    site = Cut(always_runs)
    bench = play(lambda: Bench(tmp_path, site), lambda _: None, lambda: True)
    assert {r.outcome for r in bench.flow.results.values()} == {"passed"}
    text = "site local: launch-0.stdout did not come here: could not be brought"
    assert bench.alarms == [text, text]
    assert len(bench.logs) == 2


def test_a_controller_that_is_not_the_last_one_ends_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_link, "SITE_LOST_S", 0.1)

    class Resumed(FakeSite):
        async def attach(self, run_id: str, epoch: int) -> Attached:
            raise PlanError("run r was resumed; this controller is not its last")

    bench = play(lambda: Bench(tmp_path, Resumed(always_runs)), lambda _: None, lambda: True)
    assert all("was resumed" in str(r.reason) for r in bench.flow.results.values())


@pytest.mark.parametrize("ends", ["taken", "refused"])
def test_a_job_on_its_way_to_a_site_that_is_given_up_is_lost_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Nobody listens for its end: it would last until `limits.job_s`."""
    monkeypatch.setattr(flow_module, "MAX_ATTEMPTS", 1)

    class Slow(Restarting):
        given_up: Callable[[], bool]

        async def submit(self, jobs: Sequence[DeviceJob], boot_id: str = "") -> None:
            monkeypatch.setattr(site_link, "SITE_LOST_S", 0.1)
            self.fail_polls = 10**6
            self._say(DeviceChanged(b.device("a")))  # ends the poll under way
            while not self.given_up():
                await asyncio.sleep(0.01)
            if ends == "refused":
                raise SiteLost("its agent was lost")

    async def scenario() -> Bench:
        site = Slow()
        bench = Bench(tmp_path, site)
        site.given_up = lambda: bench.controller._links[""]._lost is not None
        assert await bench.run() is None
        return bench

    bench = asyncio.run(scenario())
    assert {r.outcome for r in bench.flow.results.values()} == {"errored"}
    assert all("not reached for 0.1 s" in r.reason for r in bench.flow.results.values())


def test_objects_of_a_job_are_named_once() -> None:
    ref = ObjectRef("a" * 64, 1, "model.pte")
    from farm.core.runner import OWN, DeployFile
    from farm.core.runtime import BaselineArm, LaunchRequest
    from tests.unit.core.builders import BUILD

    files = (DeployFile(ref, "model.pte"),)
    job = DeviceJob(
        "j", 1, 1, "r", "c", "d", OWN, files, (LaunchRequest(1),),
        baseline=BaselineArm("base", files, BUILD),
    )  # fmt: skip
    assert needed_objects(job).count(ref) == 1
