"""Cells among their nights: what moved, and since when they fail. Nothing is judged by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from farm.core.nights import LevelChange, SelfCheck, SelfChecked
from farm.core.result import CellResult, Outcome, Report
from farm.core.sustained import Sustained
from farm.reports import html, markdown, notice
from farm.run.past_runs import PastRuns
from farm.state.history import History
from tests.unit.reports.builders import report, results

CELL = results()[0].cell_id


def night(number: int, rate: float, outcome: Outcome = "passed") -> Report:
    first = results()[0]
    rows = tuple(
        replace(p, median=rate, trust="ok")
        for p in first.performance
        if (p.metric, p.regime) == ("tg32", "warm")
    )
    cell: CellResult = replace(first, performance=rows, outcome=outcome)
    return replace(report((cell,)), run_id=f"r{number:02}", started_at=f"2026-01-{number + 1:02}")


def nights(home: Path, *rates: float, outcomes: dict[int, Outcome] | None = None) -> Report:
    """The last of some nights, with what those before it say."""
    told = outcomes or {}
    made = [night(n, rate, told.get(n, "passed")) for n, rate in enumerate(rates)]
    with_index = History(home / "history.db")
    for one in made[:-1]:
        with_index.add(one, home, {})
    with_index.close()
    return PastRuns(home, []).with_trend(made[-1])


FLAT = (80.0, 81.0, 79.0, 80.0, 80.5, 79.5)


def test_a_change_of_level_is_told_with_its_first_run_and_fails_nothing(tmp_path: Path) -> None:
    found = nights(tmp_path, *FLAT, *(0.8 * v for v in FLAT))
    (cell,) = found.results
    (change,) = cell.changes
    assert (change.metric, change.run_id, change.unit) == ("tg32", "r06", "tok/s")
    assert 0.79 < change.after / change.before < 0.81
    assert (cell.outcome, cell.red_since) == ("passed", "")
    for text in (markdown.render(found), html.render(found), notice.of_run(found, tmp_path).body):
        assert "since run r06" in text
    assert "Over the nights" not in markdown.render(nights(tmp_path / "flat", *FLAT, *FLAT))


def test_a_report_carries_the_last_nights_of_each_metric(tmp_path: Path) -> None:
    (cell,) = nights(tmp_path, *FLAT).results
    (trend,) = cell.trend
    assert (trend.metric, trend.unit) == ("tg32", "tok/s")
    assert dict(zip(trend.runs, trend.medians, strict=True)) == {
        f"r{n:02}": value for n, value in enumerate(FLAT)
    }
    assert nights(tmp_path / "first", 80.0).results[0].trend == ()


def test_first_red_since_counts_tonight(tmp_path: Path) -> None:
    outcomes: dict[int, Outcome] = {1: "failed", 2: "passed", 4: "failed", 5: "failed"}
    (cell,) = nights(tmp_path, *FLAT, outcomes=outcomes).results
    assert cell.red_since == "r04"
    (cell,) = nights(tmp_path / "first", *FLAT, outcomes={5: "failed"}).results
    assert cell.red_since == "r05"


def test_another_device_under_the_name_is_another_story(tmp_path: Path) -> None:
    index = History(tmp_path / "history.db")
    for n, rate in enumerate([*FLAT, *FLAT]):
        made = night(n, 0.5 * rate)
        (cell,) = made.results
        other = replace(cell, device=replace(cell.device, identity="another"))
        index.add(replace(made, results=(other,)), tmp_path, {})
    for n, rate in enumerate(FLAT, 12):
        index.add(night(n, rate), tmp_path, {})
    index.close()
    (cell,) = PastRuns(tmp_path, []).with_trend(night(18, 80.0)).results
    assert cell.changes == ()


def test_a_damaged_index_leaves_the_report_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_text("no database, at all")
    made = night(1, 80.0)
    assert PastRuns(tmp_path, []).with_trend(made) == made


def test_sustained_and_self_check_are_in_every_report(tmp_path: Path) -> None:
    long = Sustained(
        "tg32", 600.0, 11.0, 60.0, 3.5, True, 121.0, ((0.0, 11.0), (300.0, 3.5)), None, "no gauge",
        {"clock_cap": "flagged: policy0 from 2400 to 1500 MHz", "load": "ok"},
    )  # fmt: skip
    checked = SelfChecked("slower", "r9", CELL, "PASS", False, "x")
    made = night(1, 80.0)
    (cell,) = made.results
    change = LevelChange("tg32", "tok/s", "r00", 80.0, 60.0)
    made = replace(
        made,
        results=(replace(cell, sustained=long, changes=(change,)),),
        self_check=SelfCheck((checked,), 30, 30, 1, 4, 2),
    )
    for text in (markdown.render(made), html.render(made)):
        assert "11 tok/s in the first 60 s, 3.5 in the last third" in text
        assert "slowed by a tenth after 121 s" in text
        assert "energy unsupported: no gauge" in text
        assert "policy0 from 2400 to 1500 MHz" in text
        assert "1 of 30 unchanged cells were REGRESSED, 2 of 4 planted slowdowns" in text
    assert "<polyline" in html.render(made)
    assert "2 of 4 planted slowdowns" in notice.of_run(made, tmp_path).body
