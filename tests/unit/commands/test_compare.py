from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from farm.cli import look
from farm.commands.compare import compare, refused
from farm.core.result import Outcome
from farm.reports.json import render
from farm.ui import tables
from tests.unit.reports.builders import report, results


def test_two_runs_side_by_side() -> None:
    old = results()[0]
    rows = tuple(
        replace(p, median=p.median and p.median * 0.5) if p.metric == "tg32" else p
        for p in old.performance
    )
    new = replace(
        old, performance=rows, outcome="failed", artifact=replace(old.artifact, sha256="e" * 64)
    )
    gone = results()[1]
    first, second = compare(report((old, gone)), report((new,)))
    assert (first.cell_id, first.before, first.after) == (old.cell_id, old.outcome, "failed")
    ratios = {pair.metric: pair.ratio for pair in first.pairs}
    assert ratios["tg32"] == pytest.approx(0.5)
    assert ratios["pp64"] == 1.0
    assert {"perplexity", "peak_rss_bytes"} <= set(ratios)
    assert len(first.differs) == 1
    assert first.differs[0].endswith("-> eeeeeeeeeeee")
    assert (second.cell_id, second.after) == (gone.cell_id, "")
    console = Console(width=250, record=True)
    console.print(tables.compared([first, second]))
    assert "0.500" in console.export_text()


def test_numbers_that_are_invalid_are_not_put_side_by_side() -> None:
    cell = results()[0]
    rows = tuple(replace(p, trust="invalid") for p in cell.performance)
    (found,) = compare(report((cell,)), report((replace(cell, performance=rows),)))
    pair = next(pair for pair in found.pairs if pair.metric == "tg32")
    assert (pair.after, pair.why) == (None, "a run has no trusted number of it")


def test_perplexities_of_different_texts_arent_compared() -> None:
    cell = results()[0]
    before, after = (
        replace(report((cell,)), config={"correctness": asked})
        for asked in ({}, {"text": "corpus.txt"})
    )
    pairs = {pair.metric: pair for pair in compare(before, after)[0].pairs}
    assert pairs["perplexity"].why == "correctness.text is corpus.txt, was builtin"
    assert pairs["tg32"].ratio == 1.0
    assert not any(pair.why for pair in compare(after, after)[0].pairs)


@pytest.mark.parametrize("ended", ["passed", "errored"])
def test_where_nothing_could_be_compared_the_exit_code_says_so(
    tmp_path: Path, ended: Outcome
) -> None:
    cell = results()[0]
    lost = replace(
        cell, outcome=ended, performance=(), correctness=None,
        memory=replace(cell.memory, peak_rss_bytes=None),
    )  # fmt: skip
    for name, one in (("before", cell), ("after", cell if ended == "passed" else lost)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(render(report((one,))), encoding="utf-8")
    code = look.compare(str(tmp_path / "before"), str(tmp_path / "after"), tmp_path)
    assert code == (0 if ended == "passed" else 3)


def test_what_cant_be_compared_gets_no_ratio_and_its_reason() -> None:
    cell = results()[0]
    one, other = (
        replace(cell, device=replace(cell.device, os_build=name)) for name in ("one", "another")
    )
    (found,) = compare(report((one,)), report((other,)))
    pairs = {pair.metric: pair for pair in found.pairs}
    assert pairs["tg32"].ratio is None
    assert pairs["tg32"].after == pairs["tg32"].before
    assert "OS build is another" in pairs["tg32"].why
    assert pairs["perplexity"].ratio == 1.0
    (line,) = refused([found])
    assert line.startswith(f"{cell.cell_id}: ")
    assert "tg32" in line
    assert "not compared: OS build is another, was one" in line


def test_a_metric_that_was_timed_in_another_way_isnt_compared() -> None:
    cell = results()[0]
    rows = tuple(
        replace(p, threads=p.threads + 1) if p.metric == "tg32" else p for p in cell.performance
    )
    (found,) = compare(report((cell,)), report((replace(cell, performance=rows),)))
    pairs = {pair.metric: pair for pair in found.pairs}
    assert "threads is" in pairs["tg32"].why
    assert pairs["pp64"].ratio == 1.0
