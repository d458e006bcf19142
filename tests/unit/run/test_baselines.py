"""Baselines are made cell by cell, from trusted numbers, and go into a repository."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.comparison import BaselineReport, MetricComparison
from farm.core.errors import ConfigError
from farm.core.plan import Catalog
from farm.core.result import CellResult, Report
from farm.judge.night import Against, compare_run
from farm.planning.planning import Prepared
from farm.run import ending
from farm.run.baselines import (
    Baseline,
    export_text,
    find_baseline,
    list_baselines,
    set_baseline,
    unplanned,
)
from tests.unit.core import builders as b
from tests.unit.reports.builders import report, results


def run(run_id: str, *cells: CellResult) -> Report:
    return replace(report(cells), run_id=run_id)


def cell(name: str, **changes: object) -> CellResult:
    return replace(results()[0], cell_id=name, **changes)  # type: ignore[arg-type]


def origins(root: Path) -> dict[str, str]:
    found = find_baseline(root, "b")
    assert found is not None
    return {cell_id: result.origin_run for cell_id, result in found.cells.items()}


def test_a_clock_that_fell_back_renews_no_waiver() -> None:
    now = datetime.datetime.now(datetime.UTC).date()
    assert ending.today(None) == now
    assert (
        ending.today(Baseline("b", replace(run("old"), started_at="1999-01-01T00:00:00Z"))) == now
    )
    late = ending.today(Baseline("b", replace(run("new"), started_at="2099-01-01T00:00:00Z")))
    assert late == datetime.date(2099, 1, 1)


def test_what_a_run_did_not_judge_stays(tmp_path: Path) -> None:
    first = set_baseline(tmp_path, "b", run("mon", cell("phone"), cell("board")))
    assert (first.added, first.replaced, first.kept) == (("phone", "board"), (), {})
    away = cell("phone", outcome="skipped", flags=("device_missing",), performance=())
    second = set_baseline(tmp_path, "b", run("tue", away, cell("board"), cell("new")))
    assert (second.added, second.replaced) == (("new",), ("board",))
    assert second.kept == {"phone": "mon"}
    assert second.refused == {"phone": "skipped"}
    assert origins(tmp_path) == {"board": "tue", "new": "tue", "phone": "mon"}


def test_a_loss_that_becomes_the_baseline_is_told(tmp_path: Path) -> None:
    metrics = [MetricComparison(name, "SLOWER", 0.98, None) for name in ("tg32", "instructions@a")]
    slower, more = (
        cell(name, baseline=BaselineReport("old", "SLOWER", None, None, (metric,)))
        for name, metric in zip(("phone", "board"), metrics, strict=True)
    )
    assert set_baseline(tmp_path, "b", run("mon", slower, more, cell("tablet"))).slower == (
        "phone",
    )


@pytest.mark.parametrize("outcome", ["failed", "inconclusive", "errored", "skipped"])
def test_only_what_passed_replaces(tmp_path: Path, outcome: str) -> None:
    set_baseline(tmp_path, "b", run("mon", cell("phone"), cell("board")))
    change = set_baseline(tmp_path, "b", run("tue", cell("phone", outcome=outcome), cell("board")))
    assert change.refused == {"phone": outcome}
    assert origins(tmp_path)["phone"] == "mon"


def test_a_run_without_a_trusted_speed_is_no_baseline(tmp_path: Path) -> None:
    rows = tuple(replace(p, trust="invalid") for p in cell("a").performance)
    with pytest.raises(ConfigError, match="none of its speeds can be trusted"):
        set_baseline(tmp_path, "b", run("mon", cell("a", performance=rows)))
    assert find_baseline(tmp_path, "b") is None


def test_an_invalid_number_stays_out_beside_good_ones(tmp_path: Path) -> None:
    rows = tuple(
        replace(p, trust="invalid" if p.metric == "tg32" else p.trust)
        for p in cell("a").performance
    )
    made = set_baseline(tmp_path, "b", run("mon", cell("a", performance=rows))).baseline
    metrics = {p.metric for p in made.cells["a"].performance}
    assert "pp64" in metrics
    assert "tg32" not in metrics


def test_the_os_build_comes_with_a_cell(tmp_path: Path) -> None:
    device = replace(cell("a").device, os_build="build-7")
    set_baseline(tmp_path, "b", run("mon", cell("a", device=device)))
    (found,) = list_baselines(tmp_path)
    assert found.cells["a"].device.os_build == "build-7"


def test_an_export_is_a_baseline_and_the_same_text_every_time(tmp_path: Path) -> None:
    made = set_baseline(tmp_path, "b", run("mon", cell("z"), cell("a"))).baseline
    text = export_text(made)
    assert text == export_text(made)
    assert [one["cell_id"] for one in json.loads(text)["results"]] == ["a", "z"]
    assert '"samples": []' in text
    file = tmp_path / "git" / "b.json"
    file.parent.mkdir()
    file.write_text(text, "utf-8")
    found = find_baseline(tmp_path, str(file))
    assert found is not None
    assert {c: r.origin_run for c, r in found.cells.items()} == {"a": "mon", "z": "mon"}
    medians = {p.metric: p.median for p in made.cells["a"].performance}
    assert {p.metric: p.median for p in found.cells["a"].performance} == medians


def test_a_comparison_names_the_run_of_its_cell(tmp_path: Path) -> None:
    set_baseline(tmp_path, "b", run("mon", cell("phone"), cell("board")))
    set_baseline(tmp_path, "b", run("tue", cell("board")))
    baseline = find_baseline(tmp_path, "b")
    assert baseline is not None
    against = Against(baseline.report.run_id, baseline.cells, 0.1, {}, {})
    phone, board = compare_run([cell("phone"), cell("board")], against)
    assert phone.baseline is not None
    assert board.baseline is not None
    assert (phone.baseline.run_id, board.baseline.run_id) == ("mon", "tue")


@pytest.mark.parametrize("name", ["absent.json", "folder/absent"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        find_baseline(tmp_path, name)


def test_a_broken_older_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ConfigError, match=r"b\.json"):
        set_baseline(tmp_path, "b", run("mon", cell("a")))
    assert (tmp_path / "b.json").read_text() == "{"


def test_cells_of_a_baseline_that_a_run_does_not_plan_are_named() -> None:
    """A phone that was attached when the baseline was made, and that no inventory names."""
    spec = b.run_spec()
    prepared = Prepared(spec, {}, Catalog({}, {}, {}, {}), b.plan(spec, b.device("pixel8")))
    planned = prepared.plan.cells[0].cell_id
    both = (planned, planned.replace("pixel8", "s24"))
    cells = tuple(replace(results()[0], cell_id=cell_id) for cell_id in both)
    (told,) = unplanned(prepared, Baseline("tiny", report(cells)))
    assert told == f"baseline tiny has 1 cell that this run doesn't plan: {both[1]}"
    assert unplanned(prepared, Baseline("tiny", report(cells[:1]))) == []
