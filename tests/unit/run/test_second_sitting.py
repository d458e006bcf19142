"""Second sittings of a run: chosen after the first look, recorded, and made once by a resume."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.errors import DeviceLost
from farm.core.flow.second import SUFFIX, sittings
from farm.core.result import CellResult, Report
from farm.core.runner import DeployFile
from farm.core.runtime import BaselineArm, DeviceJob, DeviceRunResult
from farm.core.spec import Limits
from farm.core.view import SecondSittings
from farm.run import baselines, ending
from farm.ui.plain import describe
from farm.ui.view import RunView, update
from tests.unit.core import builders as b
from tests.unit.run.test_run import ALL_PASSED, Killed, Lab, killed_at, opened, outcomes

ARM = BaselineArm("old", (DeployFile(b.ref("old.pte"), "model.pte"),), b.BUILD)


@pytest.fixture
def on_a(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell has a baseline to run beside; the one on device `a` looks suspicious."""

    def arms(prepared: object, *_: object) -> tuple[dict[str, BaselineArm], dict[str, str]]:
        return {cell.cell_id: ARM for cell in prepared.plan.cells}, {}  # type: ignore[attr-defined]

    def suspicious(_: object, results: Mapping[str, CellResult], *__: object) -> tuple[str, ...]:
        return tuple(i for i, one in results.items() if one.device.name == "a" and SUFFIX not in i)

    monkeypatch.setattr(baselines, "find_arms", arms)
    monkeypatch.setattr(ending, "suspicious", suspicious)


def recorded(lab: Lab) -> dict[str, CellResult]:
    with opened(lab) as journal:
        assert not journal.damaged
        return sittings(journal.cells())


@pytest.mark.usefixtures("on_a")
def test_a_run_makes_it_after_every_first_look(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    report = asyncio.run(lab.start())
    assert (outcomes(report), report.exit_code) == (ALL_PASSED, 0)
    assert sorted(lab.jobs[:2]) == ["a", "b"]
    assert lab.jobs[2:] == ["a"]
    (cell_id,) = (r.cell_id for r in report.results if r.device.name == "a")
    assert set(recorded(lab)) == {cell_id}
    (chosen,) = (event for event in lab.seen if isinstance(event, SecondSittings))
    assert chosen.cell_ids == (cell_id,)
    view = update(RunView(cells={cell_id: "a"}), chosen, 1.0)
    assert set(view.cells) == {cell_id, cell_id + SUFFIX}
    assert cell_id in (describe(RunView(), view, chosen) or "")


@pytest.mark.usefixtures("on_a")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_journal_write_the_sitting_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    seen = set()
    for number in itertools.count(6):  # the first six are the plan
        lab = Lab(tmp_path / str(number))
        with monkeypatch.context() as patched:
            dead = killed_at(patched, number, after=after)
            with contextlib.suppress(Killed):
                asyncio.run(lab.start())
        if not dead:
            break
        jobs_before = len(lab.jobs)
        with opened(lab) as journal:
            settled = {*journal.cells(), *journal.measured()}
        seen.add(frozenset(settled))
        report: Report = asyncio.run(lab.resume())
        assert (outcomes(report), report.exit_code) == (ALL_PASSED, 0), number
        assert len(lab.jobs) - jobs_before == 3 - len(settled), "measured again, or not at all"
        assert len(recorded(lab)) == 1
    assert {len(settled) for settled in seen} == {0, 2, 3}, "not killed in every part"


@pytest.mark.usefixtures("on_a")
def test_a_device_that_goes_away_leaves_its_sitting_errored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.core.flow.jobs.RETRY_PAUSE_S", 0.01)

    def gone(job: DeviceJob) -> DeviceRunResult | DeviceLost:
        if job.job_id.endswith(SUFFIX):
            return DeviceLost("the cable was pulled", device=job.device)
        return b.run_result()

    lab = Lab(tmp_path)
    report = asyncio.run(lab.start(gone))
    assert outcomes(report) == ALL_PASSED
    (second,) = recorded(lab).values()
    assert second.outcome == "errored"
    assert "cable" in second.reason
    again = asyncio.run(lab.resume())
    assert again.exit_code == 0
    assert next(iter(recorded(lab).values())).outcome == "passed", "a resume tries it again"


@pytest.mark.usefixtures("on_a")
def test_the_time_limit_of_the_run_ends_before_the_sitting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []
    real = ending.judged

    def judged(*args: object) -> list[CellResult]:
        found.extend(args[3:5])
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ending, "judged", judged)
    lab = Lab(tmp_path)
    planned = lab.prepared()
    short = replace(planned, spec=replace(planned.spec, limits=Limits(run_s=1.0)))
    monkeypatch.setattr(lab, "prepared", lambda: short)
    report = asyncio.run(
        lab.start(lambda job: None if job.job_id.endswith(SUFFIX) else b.run_result())
    )
    assert outcomes(report) == ALL_PASSED
    assert report.exit_code == 3, "what was not made keeps the night from being complete"
    seconds, halt = found
    assert seconds == {}
    assert "limits.run_s" in halt.reason  # type: ignore[attr-defined]


def test_whoever_decides_by_more_runs_gets_no_second_sitting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path)
    report = asyncio.run(lab.start())
    found = {result.cell_id: result for result in report.results}
    monkeypatch.setattr(
        ending, "second_sittings", lambda results: tuple(r.cell_id for r in results)
    )
    base = baselines.Baseline("b", report)
    assert set(ending.suspicious(lab.prepared(), found, base, {})) == set(found)
    alone = replace(base, one_look=True)
    assert ending.suspicious(lab.prepared(), found, alone, {}) == ()
