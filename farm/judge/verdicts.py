"""One metric of a cell against its baseline, side by side: a ratio, its interval, a verdict.

| verdict      | when, with "allowed" the largest loss that the config accepts                  |
|--------------|--------------------------------------------------------------------------------|
| PASS         | a loss larger than allowed is excluded                                         |
| SLOWER       | the same, and a smaller one is proven: it passes, and is shown                 |
| IMPROVED     | a gain as large as the allowed loss is proven                                  |
| REGRESSED    | a loss larger than allowed, at a level that holds for the whole night, and     |
|              | found by a second sitting too (`farm.judge.night`)                             |
| NOISY        | undecided, and launches scatter                                                |
| INSUFFICIENT | undecided, or there are too few pairs                                          |
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from farm.core.comparison import BaselineVerdict, MetricComparison
from farm.core.result import PerformanceReport
from farm.core.rules.family import POWER, SECOND_BUDGET, SUSPECT, second_level
from farm.core.rules.interval import LEAST_PAIRS, MAX_SPREAD, spread, t_tail
from farm.judge.guards import spoils_ratio, why_invalid
from farm.judge.performance import by_launch
from farm.judge.statistics import Ratio, found_with_power, paired_interval, ratio_interval

#: Losses below these are nothing a user notices, whatever their ratio: times of small models are
#: a few milliseconds, and the kernel counts memory in steps.
LEAST_LOSS = {"ttft": 0.010, "load": 0.050, "peak_rss_bytes": 4 * 2**20}
#: Nor is a share below these: a load is one window a launch, and waits for storage.
LEAST_SHARE = {"load": 0.10}


def compare_pairs(
    report: PerformanceReport, regress: float, shared: Sequence[str] = ()
) -> MetricComparison:
    """Judge one metric whose baseline ran beside it; a loss is at most suspected here.

    A guard that both arms shared says nothing about their ratio: what scatters widens its interval.
    `shared` names those that make a number invalid, and not the ratio.
    """
    metric = report.metric
    own, other = by_launch(report.samples), by_launch(report.samples, "baseline")
    if spoils_ratio(report, shared) or not own or not other:
        return MetricComparison(metric, "INSUFFICIENT", None, None, why_invalid(report, shared))
    before = statistics.median(statistics.median(values) for values in other.values())
    bound = allowed(metric, before, regress, is_rate=report.unit == "tok/s")
    judged = _judged(metric, paired_interval(own, other, looked=True), bound)
    scatters = report.trust in ("noisy", "invalid") or (spread(other) or 0.0) > MAX_SPREAD
    is_noisy = scatters and judged.verdict == "INSUFFICIENT" and judged.ci95 is not None
    return replace(judged, verdict="NOISY") if is_noisy else judged


def compare_peaks(now: Sequence[int], then: Sequence[int], regress: float) -> MetricComparison:
    """Judge peak RSS. It doesn't drift with heat or load, so only its own scatter counts."""
    metric = "peak_rss_bytes"
    new, old = ({n: [float(v)] for n, v in enumerate(values)} for values in (now, then))
    bound = allowed(metric, statistics.median(then), regress, is_rate=False)
    judged = _judged(metric, ratio_interval(new, old), bound)
    return replace(judged, verdict="PASS") if judged.verdict == "SLOWER" else judged


def allowed(metric: str, old: float, regress: float, *, is_rate: bool) -> float:
    """Return the ratio new / old at which a loss is as large as accepted."""
    if is_rate:
        return 1 - regress
    name = metric.split("@")[0]
    return 1 + max(regress, LEAST_LOSS.get(name, 0.0) / old, LEAST_SHARE.get(name, 0.0))


def with_power(one: MetricComparison, found: Ratio, comparisons: int) -> MetricComparison:
    """Tell the smallest loss that a night of so many comparisons finds with 95 % power.

    Found is: suspected by this sitting, and proven by a second one of its length in a night.
    """
    if found.error is None or one.bound is None:
        return one
    each, pairs = math.sqrt(POWER), SECOND_BUDGET * one.pairs
    error = found.error / math.sqrt(SECOND_BUDGET)
    beyond = max(
        found_with_power(found.error, found.df, (SUSPECT,), power=each),
        found_with_power(error, pairs - 2, (second_level(comparisons),), power=each),
    )
    return replace(one, smallest_loss=_loss(one.bound, beyond))


def _loss(bound: float, beyond: float) -> float:
    """A shift of the logarithm beyond a bound, as a share lost."""
    if bound < 1:
        return 1 - bound * math.exp(-beyond)
    return bound * math.exp(min(beyond, 50.0)) - 1


def _judged(metric: str, found: Ratio, bound: float) -> MetricComparison:
    pairs = min(found.launches)
    one = MetricComparison(metric, "INSUFFICIENT", found.ratio, found.ci95, "", bound, pairs=pairs)
    if found.ci95 is None or found.error is None:
        needed = 2 if metric == "peak_rss_bytes" else LEAST_PAIRS
        sides = f"{pairs} launch{'' if pairs == 1 else 'es'} of each side"
        return replace(one, reason=f"{sides} judge nothing; {needed} are the least")
    # Written for a rate; a time is the same with its sides exchanged.
    sign = 1.0 if bound < 1 else -1.0
    mean, limit = sign * math.log(found.ratio), sign * math.log(bound)
    low, high = sorted(sign * math.log(end) for end in found.ci95)
    if found.error:
        p = t_tail((limit - mean) / found.error, found.df)
    else:
        p = 0.0 if mean < limit else 1.0
    one = replace(one, p=p)
    verdict = _verdict(low, high, limit)
    if verdict != "INSUFFICIENT":
        reason = "a loss within what is accepted" if verdict == "SLOWER" else ""
        return replace(one, verdict=verdict, reason=reason)
    least = "least" if bound < 1 else "most"
    reason = (
        f"{found.ratio:.3g}x the baseline ({found.ci95[0]:.3g} to {found.ci95[1]:.3g}),"
        f" wanted at {least} {bound:.3g}x"
    )
    return replace(one, reason=reason)


def _verdict(low: float, high: float, limit: float) -> BaselineVerdict:
    """Verdict by the ends of the interval, logarithms of a ratio whose losses are below 0."""
    if low < limit:
        return "INSUFFICIENT"
    if low > -limit:
        return "IMPROVED"
    return "SLOWER" if high < 0 else "PASS"
