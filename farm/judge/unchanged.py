"""A cell whose artifact and runner are the baseline's, byte for byte: a test of its device.

Nothing that could have become slower has changed, so such a cell never is REGRESSED. What it gives
is held against what the same bytes gave on this device in earlier nights: far from that, the device
changed (its OS, its battery, a fan), and that is an alarm, not a pass.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from farm.core.comparison import MetricComparison
from farm.core.result import CellResult, PerformanceReport
from farm.judge.guards import why_invalid

#: Medians of one metric in earlier nights with the same bytes on the same device, by metric.
Past = Mapping[str, Sequence[float]]

#: How far a rate moves between sittings although nothing changed: phones by 16-25 % (measured).
DRIFT = 0.25
#: Nights from which on the device's own scatter says it better; the least and the most that is
#: allowed then: no number of loud nights makes half of a rate usual.
KNOWS_SCATTER, LEAST_DRIFT, MOST_DRIFT = 5, 0.10, 0.50


def compare_unchanged(
    new: CellResult, old: CellResult, past: Past
) -> tuple[list[MetricComparison], list[str]]:
    """Hold the rates of a cell against what the same bytes gave.

    Args:
        new: The cell now.
        old: The baseline's.
        past: Rates of earlier nights besides.

    Returns:
        A comparison for each warm rate, and what is wrong with the device.
    """
    before = {p.metric: p for p in old.performance if p.regime == "warm" and p.unit == "tok/s"}
    found, alarms = [], []
    for report in new.performance:
        if report.regime != "warm" or report.unit != "tok/s" or report.reason:
            continue
        values = list(past.get(report.metric, ()))
        earlier = before.get(report.metric)
        if not values and earlier is not None and earlier.median is not None:
            values = [earlier.median]
        one = _held_against(report, values)
        found.append(one)
        if one.verdict == "INCOMPARABLE":
            alarms.append(f"device {new.device.name}: {one.metric}: {one.reason}")
    told = {report.metric for report in new.performance if report.regime == "warm"}
    for metric in sorted(before.keys() - told):
        reason = "no longer measured"
        found.append(MetricComparison(metric, "INCOMPARABLE", None, None, reason))
    return found, alarms


def _held_against(report: PerformanceReport, past: Sequence[float]) -> MetricComparison:
    metric = report.metric
    if report.trust == "invalid" or report.median is None:
        return MetricComparison(metric, "INSUFFICIENT", None, None, why_invalid(report))
    if not past:
        reason = "the same bytes have no earlier number on this device"
        return MetricComparison(metric, "INSUFFICIENT", None, None, reason)
    logs = [math.log(value) for value in past]
    middle = statistics.median(logs)
    ratio = report.median / math.exp(middle)
    nights = f"{len(past)} night{'' if len(past) == 1 else 's'}"
    if abs(math.log(ratio)) <= _usual(logs, middle):
        reason = f"the same bytes: {ratio:.3g}x of what they gave in {nights}"
        return MetricComparison(metric, "PASS", ratio, None, reason)
    seen = (
        f"{report.median:.4g} {report.unit} with bytes that gave {math.exp(middle):.4g} in {nights}"
    )
    if report.trust == "noisy":
        reason = f"{seen}, and too noisy to say why"
        return MetricComparison(metric, "NOISY", ratio, None, reason)
    reason = f"{seen}: the device changed, not the artifact (its OS, its battery, a fan)"
    return MetricComparison(metric, "INCOMPARABLE", ratio, None, reason)


def _usual(logs: Sequence[float], middle: float) -> float:
    """How far from its middle a rate of this device usually lies, on the log scale."""
    if len(logs) < KNOWS_SCATTER:
        return math.log1p(DRIFT)
    scatter = 1.4826 * statistics.median(abs(log - middle) for log in logs)
    return min(max(math.log1p(LEAST_DRIFT), 3 * scatter), math.log1p(MOST_DRIFT))
