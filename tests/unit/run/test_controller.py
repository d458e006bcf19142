"""The pump: what the flow decides is performed, recorded and fed back. No Ray, no device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from farm.core.artifact import ObjectRef
from farm.core.errors import ConnectError, StoreError
from farm.core.events import JobFinished, Polled
from farm.core.flow import jobs as flow_module
from farm.core.flow.flow import RunFlow
from farm.core.runtime import DeviceJob, DeviceRunResult
from farm.core.spec import Limits
from farm.core.view import CellDone, TaskFinished, ViewEvent
from farm.protocols import ByteProgress
from farm.run import site_link
from farm.run.controller import Controller
from farm.run.device_health import Care
from farm.run.halt import Halt
from farm.run.journal import Journal
from farm.run.measured import attempts_in
from farm.state.health_book import HealthBook
from tests.unit.core import builders as b
from tests.unit.fakes import FakePool, FakeSite


class Bench:
    """A controller over fakes; `run` plays it to its end."""

    def __init__(
        self,
        tmp_path: Path,
        site: FakeSite,
        pool: FakePool | None = None,
        limits: Limits | None = None,
    ) -> None:
        spec = b.run_spec()
        self.flow = RunFlow(
            spec, b.plan(spec, b.device("a"), b.device("b")), b.catalog(spec), run_id="r"
        )
        self.journal = Journal(tmp_path / "journal.db")
        self.seen: list[ViewEvent] = []
        self.logs: list[JobFinished] = []
        self.alarms: list[str] = []
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
            alarm=self.alarms.append,
            limits=limits or Limits(),
        )

    async def run(self, *, limit_s: float = 5.0) -> Halt | None:
        async with asyncio.timeout(limit_s):
            return await self.controller.run()


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
    assert not bench.journal.measured(), "judged: nothing is left to compare"
    kinds = [event["kind"] for event in bench.journal.events()]
    assert kinds.count("leased") == 2
    assert kinds.count("JobFinished") == 2
    assert len(bench.logs) == 2
    assert sum(isinstance(event, TaskFinished) for event in bench.seen) == 6


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


def test_one_cell_is_cancelled_and_the_run_goes_on(tmp_path: Path) -> None:
    async def scenario() -> tuple[Bench, FakeSite]:
        site = FakeSite(lambda job: None if job.device == "a" else b.run_result())
        bench = Bench(tmp_path, site)
        running = asyncio.create_task(bench.run())
        while len(site.jobs) < 2:
            await asyncio.sleep(0.01)
        cell_id = next(job.cell_id for job in site.jobs if job.device == "a")
        near = bench.controller.cancel_cell(cell_id + "x", "ann@desk")
        assert near == f"this run has no cell {cell_id + 'x'!r}; did you mean {cell_id}?"
        assert bench.controller.cancel_cell(cell_id, "ann@desk") == ""
        assert await running is None
        assert bench.controller.cancel_cell(cell_id, "x") == f"{cell_id} ended already: skipped"
        return bench, site

    bench, site = asyncio.run(scenario())
    assert site.cancelled == [job.job_id for job in site.jobs if job.device == "a"]
    results = {result.device.name: result for result in bench.flow.results.values()}
    assert (results["a"].flags, results["a"].reason) == (("cancelled",), "cancelled by ann@desk")
    assert results["b"].outcome == "passed"
    assert bench.journal.cells() == bench.flow.results


def test_lost_site_errors_its_cells_and_hangs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(site_link, "_POLL_PAUSE_S", 0.01)
    monkeypatch.setattr(site_link, "SITE_LOST_S", 0.1)

    async def scenario() -> Bench:
        site = FakeSite(lambda job: None)
        bench = Bench(tmp_path, site)
        running = asyncio.create_task(bench.run())
        while len(site.jobs) < 2:
            await asyncio.sleep(0.01)
        site.fail_polls = 10**6
        site._say(site._events[0].event)
        await running
        return bench

    results = asyncio.run(scenario()).flow.results
    assert {r.outcome for r in results.values()} == {"errored"}
    assert all("was lost" in r.reason for r in results.values())


def test_a_site_that_is_only_busy_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_link, "_POLL_PAUSE_S", 0.01)

    async def scenario() -> Bench:
        site = FakeSite(always_runs)
        site.fail_polls = 20
        bench = Bench(tmp_path, site)
        assert await bench.run() is None
        return bench

    results = asyncio.run(scenario()).flow.results
    assert {r.outcome for r in results.values()} == {"passed"}


def halted(tmp_path: Path, bench: Callable[[], Bench]) -> tuple[Halt, Bench]:
    async def scenario() -> tuple[Halt | None, Bench]:
        made = bench()
        return await made.run(), made

    halt, made = asyncio.run(scenario())
    assert halt is not None
    return halt, made


def test_unwritable_journal_ends_the_run_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = FakeSite(always_runs)

    def made() -> Bench:
        bench = Bench(tmp_path, site)
        real = bench.journal.record

        def full(events: list[tuple[str, object]], measured: object = ()) -> None:
            if any(kind == "JobFinished" for kind, _ in events):
                raise StoreError("disk full")
            real(events)

        monkeypatch.setattr(bench.journal, "record", full)
        return bench

    halt, _ = halted(tmp_path, made)
    assert halt == Halt("not_recorded", "disk full")
    assert site.acknowledged == 0


@pytest.mark.parametrize("where", ["emit", "on_finished", "on_task", "poll"])
def test_an_unforeseen_error_ends_the_run_wherever_it_comes_from(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(*_: object, **__: object) -> None:
        raise ValueError("odd")

    class OddSite(FakeSite):
        async def poll(
            self, run_id: str, after_seq: int, linger_s: float, boot_id: str = ""
        ) -> Polled:
            raise ValueError("odd")

    def made() -> Bench:
        bench = Bench(tmp_path, OddSite(always_runs) if where == "poll" else FakeSite(always_runs))
        if where == "on_task":
            bench.controller._host._on_task = odd
        elif where == "emit":
            bench.controller._host._emit = odd
        elif where == "on_finished":
            bench.controller._on_finished = odd
        return bench

    halt, bench = halted(tmp_path, made)
    assert (halt.flag, halt.reason) == ("defect", "farm itself failed: ValueError: odd")
    assert not bench.flow.finished
    assert "Traceback" in caplog.text


def test_a_run_over_its_limit_ends(tmp_path: Path) -> None:
    site = FakeSite(lambda job: None)
    halt, _ = halted(tmp_path, lambda: Bench(tmp_path, site, limits=Limits(run_s=0.3)))
    assert halt == Halt("run_limit", "the run reached limits.run_s (0.3 s)")
    assert sorted(site.cancelled) == sorted(job.job_id for job in site.jobs)


def test_a_job_over_its_limit_is_cancelled_and_the_run_goes_on(tmp_path: Path) -> None:
    async def scenario() -> tuple[Bench, FakeSite]:
        site = FakeSite(lambda job: b.run_result() if job.device == "b" else None)
        bench = Bench(tmp_path, site, limits=Limits(job_s=0.3))
        assert await bench.run() is None
        return bench, site

    bench, site = asyncio.run(scenario())
    found = {r.device.name: r for r in bench.flow.results.values()}
    assert (found["a"].outcome, found["b"].outcome) == ("errored", "passed")
    assert found["a"].reason == "a: the job reached limits.job_s (0.3 s)"
    assert [job_id for job_id in site.cancelled if job_id.endswith(":a")]


def test_a_site_that_takes_no_job_stops_nothing_else(tmp_path: Path) -> None:
    class Frozen(FakeSite):
        async def ensure(
            self, refs: Sequence[ObjectRef], source: str, progress: ByteProgress | None = None
        ) -> tuple[str, ...]:
            await asyncio.Event().wait()
            return ()

    async def scenario() -> Bench:
        bench = Bench(tmp_path, Frozen(always_runs))
        running = asyncio.create_task(bench.run())
        while len(bench.controller._jobs._sending) < 2:
            await asyncio.sleep(0.01)
        bench.controller.interrupt()
        async with asyncio.timeout(1.0):
            await running
        return bench

    results = asyncio.run(scenario()).flow.results
    assert {r.flags for r in results.values()} == {("interrupted",)}


def test_results_of_devices_are_kept_until_they_are_judged(tmp_path: Path) -> None:
    async def scenario() -> Bench:
        bench = Bench(tmp_path, FakeSite(always_runs), FakePool(hang=frozenset({"host_run:m1/r1"})))
        running = asyncio.create_task(bench.run())
        while len(bench.logs) < 2:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return bench

    bench = asyncio.run(scenario())
    kept = bench.journal.measured()
    assert {item.device.name for item in kept.values()} == {"a", "b"}
    assert all(item.result == b.run_result() for item in kept.values())
    assert {item.program_sha256 for item in kept.values()} == {b.bundle().pte.sha256}
    assert {a.outcome for runs in attempts_in(bench.journal.events()).values() for a in runs} == {
        "ran"
    }
