"""What somebody has to look at in a report, most pressing first. Pure.

One entry a cell and number: what it was or had to be, what it is, and the command that runs it
again. Every format that puts the red cells first reads this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from farm.core.comparison import MetricComparison
from farm.core.result import CellResult, GateResult, Report
from farm.reports.words import apart, number, seconds

Group = Literal["failed", "errored", "inconclusive", "skipped", "slower", "waived"]
#: In the order of a report.
GROUPS: tuple[Group, ...] = ("failed", "errored", "inconclusive", "slower", "skipped", "waived")
TITLES: dict[Group, str] = {
    "failed": "Failed",
    "errored": "Errored: not looked at",
    "inconclusive": "Not decided",
    "slower": "Slower, within what is accepted",
    "skipped": "Skipped: not looked at",
    "waived": "Failed and waived",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One number of one cell, or the cell as a whole where no number says it."""

    result: CellResult
    group: Group
    #: Empty: the cell as a whole.
    metric: str = ""
    #: Which stages a gate stands between, or how its user wrote it.
    where: str = ""
    #: The bound of a gate, or the baseline's median.
    was: str = ""
    now: str = ""
    #: `0.912 [0.901, 0.924]`; empty without a baseline.
    ratio: str = ""
    why: str = ""


def findings(report: Report) -> list[Finding]:
    """List what needs a look, by group and then as planned."""
    found = [entry for result in report.results for entry in _of(result)]
    return sorted(found, key=lambda entry: GROUPS.index(entry.group))


def rerun_command(report: Report, result: CellResult) -> str:
    """The command that runs one cell of a run again."""
    return f"farm rerun {report.run_id} {result.cell_id}"


def _of(result: CellResult) -> Iterable[Finding]:
    slower = [m for m in _metrics(result) if m.verdict == "SLOWER"]
    yield from (_compared(result, "slower", metric) for metric in slower)
    if result.outcome == "passed" or "excluded" in result.flags:
        return
    group: Group = "waived" if result.waived else result.outcome
    if result.outcome in ("errored", "skipped"):
        yield Finding(result, group, why=result.reason)
        return
    wanted = False if result.outcome == "failed" else None
    gates = [_gated(result, group, g) for g in _gates(result) if g.passed is wanted]
    verdicts = (
        ("REGRESSED",) if result.outcome == "failed" else ("INSUFFICIENT", "INCOMPARABLE", "NOISY")
    )
    metrics = [_compared(result, group, m) for m in _metrics(result) if m.verdict in verdicts]
    yield from [*gates, *metrics] or [Finding(result, group, why=result.reason)]


def _gates(result: CellResult) -> list[GateResult]:
    speed = [gate for p in result.performance for gate in p.gates]
    right = result.correctness.gates if result.correctness else ()
    return [*right, *speed, *result.memory.gates]


def _metrics(result: CellResult) -> tuple[MetricComparison, ...]:
    return result.baseline.metrics if result.baseline else ()


def _gated(result: CellResult, group: Group, gate: GateResult) -> Finding:
    value, bound = apart(gate.value, gate.threshold)
    was = f"{gate.op} {bound}" if bound else ""
    where = gate.text if gate.text != was else ""
    return Finding(result, group, gate.metric, where, was, value, why=gate.reason)


def _compared(result: CellResult, group: Group, metric: MetricComparison) -> Finding:
    was, now = _arms(result, metric.metric)
    ratio = "" if metric.ratio is None else f"{metric.ratio:.3f}"
    if ratio and metric.ci95 is not None:
        ratio += f" [{metric.ci95[0]:.3f}, {metric.ci95[1]:.3f}]"
    where = "against the baseline"
    return Finding(result, group, metric.metric, where, was, now, ratio, metric.reason)


def _arms(result: CellResult, name: str) -> tuple[str, str]:
    """Medians of the baseline's arm and of the cell; empty where one wasn't measured."""
    report = next((p for p in result.performance if p.metric == name and p.regime == "warm"), None)
    if report is None:
        return "", ""
    old = [sample.value for sample in report.samples if sample.arm == "baseline"]
    return rate(median(old) if old else None, report.unit), rate(report.median, report.unit)


def rate(value: float | None, unit: str) -> str:
    """A number of a performance metric in its unit; empty where there is none."""
    if value is None:
        return ""
    return seconds(value) if unit == "s" else f"{number(value)} {unit}"
