from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from farm.commands.compare import compare
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
    assert {pair.metric: pair.after for pair in found.pairs}["tg32"] is None
