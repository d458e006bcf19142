from __future__ import annotations

from dataclasses import replace

from farm.commands.side_by_side import page
from tests.unit.reports.builders import EVIL, report, results


def test_two_runs_make_a_page_with_what_got_worse_first() -> None:
    old = results()[0]
    rows = tuple(
        replace(p, median=p.median and p.median * 0.5) if p.metric == "tg32" else p
        for p in old.performance
    )
    worse = replace(old, performance=rows, outcome="failed")
    fixed = results()[2]
    text = page(
        report((old, fixed)), report((worse, replace(fixed, outcome="passed", reason=EVIL)))
    )
    assert text.index("Now red") < text.index(old.cell_id) < text.index("Fixed")
    assert ">0.500<" in text
    assert "<script" not in text
    assert "The others" not in text


def test_a_pair_that_cannot_be_compared_has_the_reason_and_no_ratio() -> None:
    old = results()[0]
    other = replace(old, threads=7)
    text = page(report((old,)), report((other,)))
    assert "threads asked for is 7, was" in text
    assert "not compared" in text
    shown = text[text.index("tg32") :].split("</tr>")[0]
    assert shown.strip().endswith('data-label="ratio">-</td>')
