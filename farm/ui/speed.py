"""Tables of what was measured: every metric in every regime, and the comparison with a baseline."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from farm.core.comparison import BaselineReport
from farm.core.printable import one_line
from farm.core.result import PerformanceReport
from farm.reports.words import METHODS, number, plus_minus, seconds, visible_change
from farm.ui.frame import new_table

TRUST = {"invalid": "red", "noisy": "yellow", "unverified": "dim", "ok": "green"}
_VERDICTS = {"REGRESSED": "bold red", "PASS": "green", "IMPROVED": "green"}


def speeds(performance: Sequence[PerformanceReport]) -> RenderableType:
    """A line for each metric and regime, with its interval and what it could have shown."""
    numbers = ("threads", "median", "95 %", "could see", "launches")
    table = new_table("metric", "regime", *numbers, "trust", right=numbers)
    for p in performance:
        launches = {sample.launch for sample in p.samples if sample.arm == "candidate"}
        median = seconds(p.median) if p.unit == "s" else f"{number(p.median)} {p.unit}"
        table.add_row(
            p.metric,
            p.regime.replace("_", " "),
            str(p.threads),
            median if p.median is not None else "-",
            plus_minus(p.median, p.ci95),
            visible_change(p.min_detectable_change),
            str(len(launches)),
            Text(one_line(p.reason)) if p.reason else Text(p.trust, TRUST.get(p.trust, "")),
        )
    return table


def comparison(baseline: BaselineReport) -> list[RenderableType]:
    """A line for each metric that was compared with the baseline."""
    how = METHODS[baseline.method]
    head = Text.assemble(
        ("against ", "dim"),
        one_line(baseline.run_id),
        (f" ({how}): ", "dim"),
        (baseline.verdict, _VERDICTS.get(baseline.verdict, "yellow")),
        (f"  {one_line(baseline.reason)}" if not baseline.metrics else "", "dim"),
    )
    if not baseline.metrics:
        return [head]
    table = new_table("metric", "verdict", "ratio", "95 %", "why", right=("ratio",))
    for m in baseline.metrics:
        table.add_row(
            m.metric,
            Text(m.verdict, _VERDICTS.get(m.verdict, "yellow")),
            "-" if m.ratio is None else f"{m.ratio:.3f}",
            "" if m.ci95 is None else f"{m.ci95[0]:.3f} to {m.ci95[1]:.3f}",
            Text(one_line(m.reason)),
        )
    return [head, table]
