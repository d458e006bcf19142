from __future__ import annotations

from dataclasses import replace

import pytest

from farm.core.comparison import BaselineReport, MetricComparison
from farm.core.result import CellResult
from farm.reports import attention
from tests.unit.reports.builders import report

SLOW = MetricComparison("tg32", "REGRESSED", 0.5, (0.45, 0.55), "half as fast")


def against(result: CellResult, metric: MetricComparison) -> CellResult:
    return replace(result, baseline=BaselineReport("old", metric.verdict, 0.5, None, (metric,)))


def test_failures_come_first_and_nothing_that_passed_is_listed() -> None:
    found = attention.findings(report())
    assert list(dict.fromkeys(entry.group for entry in found)) == [
        "failed", "errored", "inconclusive", "skipped",
    ]  # fmt: skip
    assert {entry.result.outcome for entry in found} == {
        "failed", "errored", "inconclusive", "skipped",
    }  # fmt: skip


def test_a_failed_gate_says_its_bound_and_what_it_found() -> None:
    wrong = [e for e in attention.findings(report()) if e.group == "failed"]
    perplexity = next(entry for entry in wrong if entry.metric == "perplexity")
    assert perplexity.was.startswith("<= ")
    assert float(perplexity.now) > 1000


def test_a_regression_shows_both_medians_and_its_interval() -> None:
    first = report().results[0]
    tg = next(p for p in first.performance if p.metric == "tg32")
    arms = tuple(
        replace(s, arm="baseline", value=2 * s.value) if n % 2 else s
        for n, s in enumerate(tg.samples)
    )
    rest = tuple(p for p in first.performance if p is not tg)
    red = replace(first, outcome="failed", performance=(*rest, replace(tg, samples=arms)))
    (entry,) = attention.findings(report((against(red, SLOW),)))
    assert entry.ratio == "0.500 [0.450, 0.550]"
    assert entry.now == "80.4 tok/s"
    assert 150 < float(entry.was.split()[0]) < 170


def test_slower_cells_that_passed_and_waived_ones_are_listed_apart() -> None:
    first, *_ = report().results
    slower = against(first, replace(SLOW, verdict="SLOWER"))
    waived = replace(against(first, SLOW), outcome="failed", waived=True)
    groups = [entry.group for entry in attention.findings(report((waived, slower)))]
    assert groups == ["slower", "waived"]


def test_a_cell_that_says_nothing_else_gives_its_reason() -> None:
    first = report().results[0]
    lonely = replace(first, outcome="inconclusive", reason="nobody looked")
    (entry,) = attention.findings(report((lonely,)))
    assert (entry.metric, entry.why) == ("", "nobody looked")


@pytest.mark.parametrize("flags", [("excluded",)])
def test_what_the_config_excludes_needs_no_look(flags: tuple[str, ...]) -> None:
    first = replace(report().results[0], outcome="skipped", flags=flags)
    assert attention.findings(report((first,))) == []
