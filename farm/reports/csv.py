"""One line a cell and number, for spreadsheets; a number that doesn't exist is an empty field."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from farm.core.printable import one_line
from farm.core.result import CellResult, Report

HEADERS = (
    "run", "cell", "model", "recipe", "toolchain", "runner", "threads", "device", "os_build",
    "artifact_sha256", "outcome", "reason", "metric", "regime", "unit", "value", "low", "high",
    "trust", "flagged", "baseline_verdict", "ratio", "exit_code",
)  # fmt: skip


def render(report: Report) -> str:
    """Render the numbers of each cell; a cell without any has one line that says its outcome."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADERS)
    for result in report.results:
        first = _cell(report, result)
        for rest in list(_numbers(result)) or [("",) * 10]:
            fields = (*first, *rest, report.exit_code)
            writer.writerow(map(_field, fields))
    return out.getvalue()


def _field(value: object) -> str:
    """A field that a spreadsheet takes for text where it is text, and not for a formula."""
    if not isinstance(value, str):
        return "" if value is None else str(value)
    line = one_line(value)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def _cell(report: Report, result: CellResult) -> tuple[object, ...]:
    outcome = "waived" if result.waived else result.outcome
    return (
        report.run_id, result.cell_id, result.model, result.recipe, result.toolchain,
        result.runner.name, result.threads, result.device.name, result.device.os_build,
        result.artifact.sha256, outcome, result.reason,
    )  # fmt: skip


def _numbers(result: CellResult) -> Iterator[tuple[object, ...]]:
    baseline = result.baseline
    compared = {m.metric: m for m in baseline.metrics} if baseline else {}
    # Where no metric could be compared the cell's own verdict says so.
    whole = baseline.verdict if baseline and not compared else None
    for p in result.performance:
        low, high = p.ci95 or (None, None)
        flagged = " ".join(name for name, state in p.guards.items() if state == "flagged")
        verdict, ratio = whole, None
        if (against := compared.get(p.metric)) and p.regime == "warm":
            verdict, ratio = against.verdict, against.ratio
        yield (p.metric, p.regime, p.unit, p.median, low, high, p.trust, flagged, verdict, ratio)
    rss = result.memory.peak_rss_bytes
    if rss is not None:
        yield ("peak_rss", "", "B", rss, None, None, "", "", None, None)
    for s in result.correctness.stages if result.correctness else ():
        where = f"{s.from_}->{s.to}/{s.path}"
        numbers = (
            ("kl_mean", "nat", s.kl_mean),
            ("top1_agreement", "", s.top1_agreement),
            ("max_abs_error", "", s.max_abs_error),
            ("perplexity", "", s.perplexity_to),
        )
        for name, unit, value in numbers:
            if value is not None:
                yield (f"{name} {where}", "", unit, value, None, None, "", "", None, None)
