"""The pump: what the flow decides is performed, recorded and fed back. No Ray, no device."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from farm.core.errors import ConnectError, StoreError
from farm.core.events import JobFinished
from farm.core.flow import flow as flow_module
from farm.core.flow.flow import RunFlow
from farm.core.runtime import DeviceJob, DeviceRunResult
from farm.core.view import CellDone, TaskFinished, ViewEvent
from farm.run import controller as controller_module
from farm.run.controller import Controller
from farm.run.device_health import Care
from farm.run.journal import Journal
from farm.state.health_book import HealthBook
from tests.unit.core import builders as b
from tests.unit.fakes import FakePool, FakeSite


class Bench:
    """A controller over fakes; `run` plays it to its end."""

    def __init__(self, tmp_path: Path, site: FakeSite, pool: FakePool | None = None) -> None:
        spec = b.run_spec()
        self.flow = RunFlow(
            spec, b.plan(spec, b.device("a"), b.device("b")), b.catalog(spec), run_id="r"
        )
        self.journal = Journal(tmp_path / "journal.db")
        self.seen: list[ViewEvent] = []
        self.logs: list[JobFinished] = []
        self.controller = Controller(
            self.flow,
            pool=pool or FakePool(),
            sites={"": site},
            journal=self.journal,
            emit=self.seen.append,
            on_finished=self.logs.append,
            on_task=lambda task, outcome: None,
            estimates={},
            store_home=str(tmp_path),
            care=Care(HealthBook(tmp_path / "quarantine.json"), self.flow.devices),
        )

    async def run(self, *, limit_s: float = 5.0) -> None:
        async with asyncio.timeout(limit_s):
            await self.controller.run()


def always_runs(_: DeviceJob) -> DeviceRunResult:
    return b.run_result()


def test_run_ends_with_every_result_shown_and_recorded(tmp_path: Path) -> None:
    async def scenario() -> Bench:
        bench = Bench(tmp_path, FakeSite(always_runs))
        await bench.run()
        return bench

    bench = asyncio.run(scenario())
    assert bench.flow.finished
    done = [event.result for event in bench.seen if isinstance(event, CellDone)]
    assert {result.device.name for result in done} == {"a", "b"}
    assert bench.journal.cells() == bench.flow.results
    kinds = [event["kind"] for event in bench.journal.events()]
    assert kinds.count("leased") == 2
    assert kinds.count("JobFinished") == 2
    assert len(bench.logs) == 2
    assert sum(isinstance(event, TaskFinished) for event in bench.seen) == 5


def test_error_of_a_job_is_retried_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "RETRY_PAUSE_S", 0.01)

    def fails_once(job: DeviceJob) -> DeviceRunResult | ConnectError:
        first = job.attempt == 1 and job.device == "a"
        return ConnectError("no answer", device="a") if first else b.run_result()

    async def scenario() -> Bench:
        bench = Bench(tmp_path, FakeSite(fails_once))
        await bench.run()
        return bench

    results = asyncio.run(scenario()).flow.results
    assert {r.device.name: r.flags for r in results.values()} == {"a": ("retried",), "b": ()}


def test_interrupt_ends_tasks_and_jobs_within_moments(tmp_path: Path) -> None:
    async def scenario() -> tuple[Bench, FakeSite, FakePool]:
        site = FakeSite(lambda job: None)
        pool = FakePool(hang=frozenset({"host_run:m1/r1"}))
        bench = Bench(tmp_path, site, pool)
        running = asyncio.create_task(bench.run())
        while len(site.jobs) < 2:
            await asyncio.sleep(0.01)
        bench.controller.interrupt()
        await running
        return bench, site, pool

    bench, site, pool = asyncio.run(scenario())
    assert sorted(site.cancelled) == sorted(job.job_id for job in site.jobs)
    assert pool.cancelled == ["host_run:m1/r1"]
    assert {r.flags for r in bench.flow.results.values()} == {("interrupted",)}


def test_lost_site_errors_its_cells_and_hangs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(controller_module, "_POLL_PAUSE_S", 0.01)

    async def scenario() -> Bench:
        site = FakeSite(lambda job: None)
        bench = Bench(tmp_path, site)
        running = asyncio.create_task(bench.run())
        while len(site.jobs) < 2:
            await asyncio.sleep(0.01)
        site.fail_polls = 3
        site._say(site._events[0].event)
        await running
        return bench

    results = asyncio.run(scenario()).flow.results
    assert {r.outcome for r in results.values()} == {"errored"}
    assert all("was lost" in r.reason for r in results.values())


def test_unwritable_journal_ends_the_run_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, FakeSite(always_runs))

        def full(events: object) -> None:
            raise StoreError("disk full")

        monkeypatch.setattr(bench.journal, "record", full)
        await bench.run()

    with pytest.raises(StoreError, match="disk full"):
        asyncio.run(scenario())
