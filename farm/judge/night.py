"""The comparisons of a whole run decided together: what has regressed, and what that makes of it.

Cells come with their comparison (farm.judge.baseline); where a cell looked suspicious a second
sitting followed, the same cell measured again side by side. REGRESSED needs a p-value that holds
for the whole night and, of what was measured side by side, a second sitting that found the loss
too: one look alone never is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from farm.core.comparison import BaselineVerdict, MetricComparison
from farm.core.result import (
    CellResult,
    CorrectnessReport,
    Decision,
    Outcome,
    PerformanceReport,
    SecondSitting,
)
from farm.core.rules.family import FAMILY, SUSPECT, combined, holm
from farm.core.rules.gates import is_gated, kind_of
from farm.core.rules.tolerance import UNKNOWN
from farm.judge.baseline import OPEN, compare_cell, fold
from farm.judge.performance import by_launch
from farm.judge.statistics import paired_interval
from farm.judge.unchanged import Past
from farm.judge.verdicts import with_power

_OUTCOME: Mapping[BaselineVerdict, tuple[Outcome, str]] = {
    "REGRESSED": ("failed", "regressed"),
    "INCOMPARABLE": ("inconclusive", "incomparable"),
    "NOISY": ("inconclusive", "noisy"),
    "INSUFFICIENT": ("inconclusive", "insufficient"),
    "SLOWER": ("passed", "slower"),
}
_SEVERITY: tuple[Outcome, ...] = ("passed", "inconclusive", "failed")


@dataclass(frozen=True, slots=True)
class Against:
    """What a run is compared with."""

    run_id: str
    #: Results of the baseline, by cell id.
    cells: Mapping[str, CellResult]
    #: Largest loss that is accepted, as a fraction.
    regress: float
    #: Why the baseline's artifact could not run beside a cell, by cell id.
    unpaired: Mapping[str, str]
    #: What the same bytes gave in earlier nights, by cell id.
    past: Mapping[str, Past]
    #: Largest loss of each speed that is accepted, by cell id and metric, where the config says
    #: `auto`; None: `regress` holds for all.
    speeds: Mapping[str, Mapping[str, float]] | None = None

    def accepted(self, cell_id: str, metric: str) -> float:
        """Return the largest loss of a speed that is accepted, as a fraction."""
        if self.speeds is None:
            return self.regress
        return self.speeds.get(cell_id, {}).get(metric, UNKNOWN)


def compare_run(
    results: Sequence[CellResult],
    against: Against,
    confirming: Mapping[str, CellResult] | None = None,
    missing: str = "there was none",
) -> list[CellResult]:
    """Compare the cells of a run with its baseline's and adjust their outcomes.

    Args:
        results: Judged cells, in the order of the plan.
        against: The baseline.
        confirming: Second sittings of suspicious cells, judged like the first, by cell id; those
            too that could not be made.
        missing: Why a cell that is suspicious has none.
    """
    compared = [_compared(result, against) for result in results]
    seconds = {
        first.cell_id: _compared(_of_the_same(confirming[first.cell_id], first), against)
        for first in results
        if confirming is not None and first.cell_id in confirming
    }
    family: list[tuple[int, int, MetricComparison]] = []
    for index, result in enumerate(compared):
        metrics = () if result.baseline is None else result.baseline.metrics
        second = seconds.get(result.cell_id)
        for place, one in enumerate(metrics):
            if one.p is not None:
                family.append((index, place, _twice(one, second)))
    rejected = holm([one.p for _, _, one in family if one.p is not None])
    decided: dict[tuple[int, int], MetricComparison] = {}
    for (index, place, one), is_loss in zip(family, rejected, strict=True):
        result = compared[index]
        powered = _with_power(one, result, len(family))
        why = ""
        if result.baseline is not None and result.baseline.method == "paired":
            why = _not_made(seconds.get(result.cell_id), missing)
        decided[index, place] = _decided(powered, is_loss=is_loss, unconfirmed=why)
    finished = [_finished(result, index, decided) for index, result in enumerate(compared)]
    return [_with_second(result, seconds.get(result.cell_id)) for result in finished]


def _of_the_same(second: CellResult, first: CellResult) -> CellResult:
    """Return a second sitting under the name of its cell; one of other bytes says nothing."""
    second = replace(second, cell_id=first.cell_id)
    if second.artifact.sha256 in (None, first.artifact.sha256):
        return second
    reason = "it measured another artifact than the first: the export gave other bytes since"
    return replace(second, outcome="errored", reason=reason)


def _not_made(second: CellResult | None, missing: str) -> str:
    """Say why no second sitting confirmed what one looked like."""
    if second is None:
        return missing
    if second.outcome in ("errored", "skipped"):
        return second.reason
    return "it has no such number" + (f" ({second.reason})" if second.reason else "")


def _compared(result: CellResult, against: Against) -> CellResult:
    cell_id = result.cell_id
    old = against.cells.get(cell_id)
    found = compare_cell(
        result,
        old,
        run_id=(old.origin_run if old is not None else "") or against.run_id,
        regress=against.regress,
        accepted=lambda metric: against.accepted(cell_id, metric),
        unpaired=against.unpaired.get(cell_id, ""),
        past=against.past.get(cell_id),
    )
    if against.speeds is None or found.baseline is None or found.baseline.method != "paired":
        return found
    gated = [m.metric for m in found.baseline.metrics if is_gated(m.metric)]
    held = {name: against.accepted(cell_id, name) for name in gated}
    told = ", ".join(f"{name} {loss:.1%}" for name, loss in held.items())
    found = replace(found, conditions={**found.conditions, "regress": f"auto: {told}"})
    if not (wide := [f"{name} {loss:.0%}" for name, loss in held.items() if loss > UNKNOWN]):
        return found
    # It is the smallest that can be told apart, and still a gate that lets much through.
    alarm = f"{cell_id}: regress auto accepts a loss of {', '.join(wide)}: its launches scatter so"
    return replace(found, alarms=(*found.alarms, f"{alarm} much; a larger budget_s decides less"))


def _twice(one: MetricComparison, second: CellResult | None) -> MetricComparison:
    """Join what the confirming sitting of a cell says of a metric."""
    if second is None or second.baseline is None or one.p is None:
        return one
    other = next((m for m in second.baseline.metrics if m.metric == one.metric), None)
    if other is None or other.p is None:
        return one
    if one.verdict not in OPEN:
        return one  # decided; the cell was measured again because of another metric
    joined = combined(one.p, other.p)
    if other.verdict in OPEN:
        confirmed = other.p <= SUSPECT
        return replace(one, p=joined, confirmed=confirmed, ratio=other.ratio, ci95=other.ci95)
    reason = f"suspected ({one.ratio:.3g}x), not found again" if one.p <= SUSPECT else other.reason
    return replace(other, p=joined, confirmed=False, reason=reason)


def _decided(one: MetricComparison, *, is_loss: bool, unconfirmed: str) -> MetricComparison:
    """Decide one metric; `unconfirmed` says why it lacks the second sitting that it needs."""
    if one.verdict not in OPEN or one.p is None:
        return one
    if is_loss and (one.confirmed or (one.confirmed is None and not unconfirmed)):
        note = "; confirmed by a second sitting" if one.confirmed else ""
        return replace(one, verdict="REGRESSED", reason=one.reason + note)
    reason = one.reason
    if one.confirmed is None and unconfirmed:
        reason += f"; no second sitting: {unconfirmed}"
    if one.smallest_loss is not None:
        size = f"{one.smallest_loss:.1%}" if one.smallest_loss <= 1 else "more than 100%"
        reason += f"; a loss of {size} would have been found"
    if one.p <= SUSPECT:
        reason += f"; suspected (p {one.p:.2g}), not proven at {FAMILY:.0%} for the whole night"
    return replace(one, reason=reason)


def _with_second(result: CellResult, second: CellResult | None) -> CellResult:
    """Keep what a second sitting gave; wrong numbers of it fail the cell as those of the first."""
    if second is None:
        return result
    metrics = () if second.baseline is None else second.baseline.metrics
    kept = SecondSitting(
        second.outcome,
        second.reason,
        second.flags,
        second.attempts,
        second.performance,
        metrics,
    )
    result = replace(result, second=kept)
    if second.outcome in ("errored", "skipped"):
        alarm = f"{result.cell_id}: its second sitting could not be made: {second.reason}"
        return replace(result, alarms=(*result.alarms, alarm))
    if second.correctness_decision != "failed":
        return result
    correctness = _with_gates_of(result.correctness, second.correctness)
    if result.correctness_decision == "failed":
        return replace(result, correctness=correctness)
    return replace(
        result,
        outcome="failed",
        reason=f"second sitting: {second.reason}",
        correctness=correctness,
        correctness_decision="failed",
    )


def _with_gates_of(
    first: CorrectnessReport | None, second: CorrectnessReport | None
) -> CorrectnessReport | None:
    """Add what failed in a second sitting: a waiver has to cover that, too."""
    if first is None or second is None:
        return first or second
    failed = tuple(g for g in second.gates if g.passed is False and g not in first.gates)
    return replace(first, gates=(*first.gates, *failed))


def _with_power(one: MetricComparison, cell: CellResult, comparisons: int) -> MetricComparison:
    report = next(
        (p for p in cell.performance if p.metric == one.metric and p.regime == "warm"), None
    )
    if report is None:
        return one
    own, other = by_launch(report.samples), by_launch(report.samples, "baseline")
    return with_power(one, paired_interval(own, other, looked=True), comparisons)


def _finished(
    result: CellResult, index: int, decided: Mapping[tuple[int, int], MetricComparison]
) -> CellResult:
    """Fold the decided metrics; the outcome can only become worse by the comparison."""
    report = result.baseline
    if report is None or result.outcome in ("errored", "skipped"):
        return result
    metrics = tuple(decided.get((index, place), m) for place, m in enumerate(report.metrics))
    if metrics != report.metrics:
        report = fold(report.run_id, metrics, report.method)
    outcome, flag = _OUTCOME.get(report.verdict, ("passed", ""))
    if "no_baseline" in result.flags:
        flag = ""  # said already, and more plainly
    flags = result.flags if not flag or flag in result.flags else (*result.flags, flag)
    result = replace(
        result,
        baseline=report,
        flags=flags,
        performance=tuple(_could_show(row, metrics) for row in result.performance),
        speed_decision=_speed(result, metrics),
        correctness_decision=_correctness(result, metrics),
    )
    if _SEVERITY.index(outcome) <= _SEVERITY.index(result.outcome):
        return result
    reason = f"{report.verdict} against {report.run_id}: {report.reason}"
    if result.reason:
        reason = f"{reason}; {result.reason}"
    return replace(result, outcome=outcome, reason=reason)


def _could_show(row: PerformanceReport, metrics: Sequence[MetricComparison]) -> PerformanceReport:
    """Say of a row that was held against a baseline which loss would have been found."""
    found = (m.smallest_loss for m in metrics if m.metric == row.metric and row.regime == "warm")
    smallest = next(found, None)
    return row if smallest is None else replace(row, min_detectable_change=smallest)


def _speed(result: CellResult, metrics: Sequence[MetricComparison]) -> Decision:
    """Join the comparison to what the cell's own gates said of its speed."""
    own = result.speed_decision
    speeds = [m for m in metrics if kind_of(m.metric) == "speed"]
    found = {m.verdict for m in speeds}
    if own == "failed" or "REGRESSED" in found:
        return "failed"
    whole = result.baseline is not None and not metrics and result.baseline.verdict in OPEN
    if own == "undecided" or found & set(OPEN) or (whole and not result.device.emulated):
        return "undecided"
    return "passed" if speeds else own


def _correctness(result: CellResult, metrics: Sequence[MetricComparison]) -> Decision:
    found = {m.verdict for m in metrics if m.metric == "perplexity"}
    if result.correctness_decision == "failed" or "REGRESSED" in found:
        return "failed"
    return "undecided" if found & set(OPEN) else result.correctness_decision
