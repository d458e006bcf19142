"""A run from its plan to its files, over a pool and a site in memory: killed and gone on with."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.cluster.start import Runtime
from farm.core.errors import FarmError, RunnerCrashed, StoreError
from farm.core.plan import Catalog
from farm.core.result import CellResult, Report
from farm.core.runtime import DeviceJob, DeviceRunResult
from farm.planning.planning import Prepared, RunOptions
from farm.run import run as run_module
from farm.run import run_folder
from farm.run.journal import Journal
from farm.run.opening import Opened, open_new, open_resumed, saved_of
from farm.run.rebuild import report_of
from farm.run.saved_plan import look_again
from farm.state.history import History
from tests.unit.core import builders as b
from tests.unit.fakes import FakePool, FakeSite

Answer = Callable[[DeviceJob], DeviceRunResult | FarmError | None]


class Lab:
    """One run folder and the devices `a` and `b`, over as many processes as a test has."""

    def __init__(self, tmp_path: Path) -> None:
        self.home, self.out = tmp_path / "home", tmp_path / "runs"
        self.options = RunOptions(config=None, out=self.out)
        self.site = FakeSite(lambda job: b.run_result())
        self.pool = FakePool()
        self.seen: list[Any] = []
        self.jobs: list[str] = []

    @property
    def folder(self) -> Path:
        return (self.out / "latest").resolve()

    def prepared(self) -> Prepared:
        spec = b.run_spec()
        catalog: Catalog = b.catalog(spec)
        plan = b.plan(spec, b.device("a"), b.device("b"))
        return Prepared(spec, {"name": "test"}, catalog, plan)

    async def start(self, answer: Answer | None = None) -> Report:
        opened = open_new(self.options, self.prepared(), "", "2026-01-01T00:00:00.000Z")
        return await self._run(opened, self.prepared(), answer)

    async def resume(self, answer: Answer | None = None) -> Report:
        opened = open_resumed(self.folder, self.options)
        try:
            self.site = FakeSite(lambda job: b.run_result())
            saved = saved_of(opened.journal, self.folder)
            prepared = await look_again(saved, {"": self.site}, self.home)
        except BaseException:
            opened.journal.close()
            raise
        return await self._run(opened, prepared, answer)

    async def _run(self, opened: Opened, prepared: Prepared, answer: Answer | None) -> Report:
        def noted(job: DeviceJob) -> DeviceRunResult | FarmError | None:
            self.jobs.append(job.device)
            return answer(job) if answer else b.run_result()

        self.site = FakeSite(noted)
        runtime = Runtime(self.pool, {"": self.site}, lambda: None)
        try:
            async with asyncio.timeout(20):
                done = await run_module._run(
                    opened, prepared, runtime, None, self.home, self.seen.append
                )
        finally:
            opened.journal.close()
        return done.report


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def outcomes(report: Report) -> dict[str, str]:
    return {result.device.name: result.outcome for result in report.results}


ALL_PASSED = {"a": "passed", "b": "passed"}


def test_a_run_leaves_every_file_and_needs_no_rebuilding(lab: Lab) -> None:
    report = asyncio.run(lab.start())
    assert (outcomes(report), report.exit_code) == (ALL_PASSED, 0)
    names = {path.name for path in lab.folder.iterdir()}
    assert {"report.json", "report.md", "junit.xml", "report.html", "events.jsonl"} <= names
    written = (lab.folder / "report.json").read_text()
    assert report_of(lab.folder, lab.home) == report
    assert (lab.folder / "report.json").read_text() == written


def test_latest_stays_the_night_whose_gate_is_tried(lab: Lab) -> None:
    for options, begun in ((lab.options, 1), (replace(lab.options, against_itself=True), 2)):
        opened = open_new(options, lab.prepared(), "", f"2026-01-01T00:00:0{begun}.000Z")
        opened.journal.close()
        assert (lab.folder == opened.folder) is not options.against_itself
    assert len([path for path in lab.out.iterdir() if not path.is_symlink()]) == 2


def test_an_unforeseen_error_leaves_a_report_and_resume_ends_the_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Journal.finish_cell

    def odd(journal: Journal, result: CellResult) -> None:
        if journal.cells():
            raise ZeroDivisionError("odd")
        real(journal, result)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "finish_cell", odd)
        report = asyncio.run(lab.start())
    assert outcomes(report) == ALL_PASSED, "the last verdict was there, and not recorded"
    assert report.exit_code == 3
    assert any("ZeroDivisionError: odd" in alarm for alarm in report.alarms)
    assert json.loads((lab.folder / "report.json").read_text())["exit_code"] == 3
    again = asyncio.run(lab.resume())
    assert (outcomes(again), again.exit_code) == (ALL_PASSED, 0)


def test_alarms_about_the_plan_outlive_the_process(lab: Lab) -> None:
    told = ["baseline b has 1 cell that this run doesn't plan: c"]
    open_new(lab.options, lab.prepared(), "", "2026-01-01T00:00:00.000Z", told).journal.close()
    assert told[0] in report_of(lab.folder, lab.home).alarms, "rebuilt from the journal"
    assert told[0] in asyncio.run(lab.resume()).alarms


def test_cells_that_had_not_ended_are_errored_with_the_reason(lab: Lab) -> None:
    def fails(job: DeviceJob) -> DeviceRunResult:
        raise KeyError("odd")

    report = asyncio.run(lab.start(fails))
    assert outcomes(report) == {"a": "errored", "b": "errored"}
    assert {result.flags for result in report.results} == {("defect",)}
    assert all("KeyError: 'odd'" in result.reason for result in report.results)
    assert report.exit_code == 3


def test_what_was_measured_is_compared_although_ctrl_c_came(lab: Lab) -> None:
    lab.pool.hang = frozenset({"host_run:m1/r1"})

    async def scenario() -> Report:
        running = asyncio.create_task(lab.start())
        while len(lab.jobs) < 2 or not lab.site.acknowledged:
            await asyncio.sleep(0.01)
        lab.pool.hang = frozenset()
        signal_now()
        return await running

    report = asyncio.run(scenario())
    assert (outcomes(report), report.exit_code) == (ALL_PASSED, 130)
    assert sorted(lab.jobs) == ["a", "b"]


def test_what_could_not_be_compared_in_time_waits_for_a_resume(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "COMPARE_S", 0.1)
    lab.pool.hang = frozenset({"host_run:m1/r1"})

    async def scenario() -> Report:
        running = asyncio.create_task(lab.start())
        while len(lab.jobs) < 2 or not lab.site.acknowledged:
            await asyncio.sleep(0.01)
        signal_now()
        return await running

    report = asyncio.run(scenario())
    assert {result.flags for result in report.results} == {("interrupted",)}
    lab.pool.hang = frozenset()
    again = asyncio.run(lab.resume())
    assert (outcomes(again), again.exit_code) == (ALL_PASSED, 0)
    assert sorted(lab.jobs) == ["a", "b"], "nothing was measured twice"


def signal_now() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Killed(SystemExit):
    """Ends the event loop from wherever it is raised, as a kill would."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> list[int]:
    """Let the process die before or after its journal write of that number."""
    counter = itertools.count()
    dead: list[int] = []
    real = Journal._commit

    def commit(journal: Journal, statements: Any) -> None:
        this = next(counter)
        if dead or (this == number and not after):
            dead.append(this)
            raise Killed(9)
        real(journal, statements)
        if this == number:
            dead.append(this)
            raise Killed(9)

    monkeypatch.setattr(Journal, "_commit", commit)
    return dead


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_journal_write_it_goes_on_to_one_result_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    for number in itertools.count(6):  # the first six are the plan
        lab = Lab(tmp_path / str(number))
        with monkeypatch.context() as patched:
            dead = killed_at(patched, number, after=after)
            with contextlib.suppress(Killed):
                asyncio.run(lab.start())
        if not dead:
            break
        jobs_before = len(lab.jobs)
        rebuilt = report_of(lab.folder, lab.home)
        assert len(rebuilt.results) == 2
        complete = set(outcomes(rebuilt).values()) == {"passed"}
        assert rebuilt.exit_code == 3 or (complete and rebuilt.exit_code == 0)
        with opened(lab) as journal:
            settled = {*journal.cells(), *journal.measured()}
        report = asyncio.run(lab.resume())
        assert (outcomes(report), report.exit_code) == (ALL_PASSED, 0), number
        assert len(lab.jobs) - jobs_before == 2 - len(settled), "measured again, or not at all"
        with opened(lab) as journal:
            assert set(journal.cells()) == {r.cell_id for r in report.results}
            assert not journal.damaged
    assert number > 12, "hardly anything was written"


def opened(lab: Lab, *, resume: bool = False) -> contextlib.closing[Journal]:
    path = lab.folder / run_folder.JOURNAL
    return contextlib.closing(Journal(path, resume=resume, read_only=not resume))


def test_a_full_disk_of_the_run_folder_changes_no_verdict(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, text: str) -> None:
        if path.suffix in (".html", ".xml"):
            raise StoreError(f"can't write {path}: No space left on device")
        real(path, text)

    real = run_folder.write_text
    monkeypatch.setattr(run_folder, "write_text", full)
    report = asyncio.run(lab.start())
    assert report.exit_code == 0
    assert any("junit.xml: No space left" in alarm for alarm in report.alarms)
    assert "report.html: No space left" in caplog.text
    assert "junit.xml: No space left" in caplog.text
    monkeypatch.undo()
    report_of(lab.folder, lab.home)
    assert (lab.folder / "report.html").exists(), "what is missing is made again"


@pytest.mark.parametrize("when", ["from the start", "at the end"])
def test_an_index_that_cannot_be_written_is_an_alarm(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def broken(*_: object) -> None:
        raise StoreError("can't use history.db: read-only")

    if when == "at the end":
        monkeypatch.setattr(History, "add", broken)
    else:
        (lab.home / "history.db").mkdir(parents=True)
    report = asyncio.run(lab.start())
    assert report.exit_code == 0
    assert sum("history.db" in alarm for alarm in report.alarms) == 1
    written = json.loads((lab.folder / "report.json").read_text())
    assert any("history.db" in alarm for alarm in written["alarms"])


def test_another_export_makes_a_kept_result_worthless(lab: Lab) -> None:
    lab.pool.hang = frozenset({"host_run:m1/r1"})

    async def until_measured() -> None:
        running = asyncio.create_task(lab.start())
        while len(lab.jobs) < 2 or not lab.site.acknowledged:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(until_measured())
    with opened(lab, resume=True) as j:
        other = [replace(m, program_sha256="f" * 64) for m in j.measured().values()]
        j.record([], [(m.cell_id, m) for m in other])
    lab.pool.hang = frozenset()
    report = asyncio.run(lab.resume())
    assert outcomes(report) == ALL_PASSED
    assert sorted(lab.jobs) == ["a", "a", "b", "b"], (
        "measured again with the program that is judged"
    )


def test_only_cells_without_a_verdict_run_again(lab: Lab) -> None:
    def crashes(job: DeviceJob) -> DeviceRunResult | FarmError:
        return RunnerCrashed("ended by signal 11") if job.device == "b" else b.run_result()

    first = asyncio.run(lab.start(crashes))
    assert outcomes(first) == {"a": "passed", "b": "errored"}
    assert first.exit_code == 3
    again = asyncio.run(lab.resume())
    assert (outcomes(again), again.exit_code) == (ALL_PASSED, 0)
    assert sorted(lab.jobs) == ["a", "b", "b"]
    assert report_of(lab.folder, lab.home) == again


def test_planned_skips_stay_what_they_were(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = b.plan(b.run_spec(), b.device("a"), b.device("b", alive=False))
    planned = replace(lab.prepared(), plan=plan)
    monkeypatch.setattr(lab, "prepared", lambda: planned)
    first = asyncio.run(lab.start(lambda job: RunnerCrashed("ended by signal 11")))
    assert outcomes(first) == {"a": "errored", "b": "skipped"}
    again = asyncio.run(lab.resume())
    assert outcomes(again) == {"a": "passed", "b": "skipped"}
    assert again.exit_code == 3, "a device of the inventory is missing"
    assert not [alarm for alarm in again.alarms if "ended early" in alarm]
