"""Medians, ratios and what they can show, with the process launch as the unit of evidence.

Samples arrive as launch number -> values; repetitions inside a launch share its memory layout,
frequency and neighbours, so they don't count as independent evidence. Values are > 0 (rates or
times) and are handled on the log scale, where slowdowns multiply.

Method: a two-level random-effects model reduced to its top level: each launch is represented
by its median, and intervals are Student t intervals over the launches. Source: Kalibera and
Jones, "Rigorous benchmarking in reasonable time" (ISMM 2013), which shows that the variance
between process executions decides; t for few executions as in Georges, Buytaert and Eeckhout,
"Statistically rigorous Java performance evaluation" (OOPSLA 2007). With three launches the
factor is 4.3: wide, and honestly so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

ByLaunch: TypeAlias = Mapping[int, Sequence[float]]

#: 97.5 % quantiles of Student's t for 1..30 degrees of freedom.
_T975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_Z975 = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median and its 95 % interval."""

    median: float
    #: None with a single launch.
    ci95: tuple[float, float] | None
    launches: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """new / old and its 95 % interval."""

    ratio: float
    #: None when either side has a single launch.
    ci95: tuple[float, float] | None
    launches: tuple[int, int]


def t975(df: int) -> float:
    """97.5 % quantile of Student's t; beyond 30 degrees of freedom by its expansion in 1/df."""
    if df < 1:
        raise ValueError("a t quantile needs at least one degree of freedom")
    if df <= len(_T975):
        return _T975[df - 1]
    z = _Z975
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)


def launch_logs(samples: ByLaunch) -> list[float]:
    """Logarithm of each launch's median, in launch order.

    Raises:
        ValueError: No sample at all, or a value that isn't positive and finite.
    """
    logs = []
    for _, values in sorted(samples.items()):
        if not values:
            continue
        if not all(0 < value < math.inf for value in values):
            raise ValueError("samples must be positive and finite")
        logs.append(math.log(statistics.median(values)))
    if not logs:
        raise ValueError("no samples")
    return logs


def median_interval(samples: ByLaunch) -> Estimate:
    """Median over launches of the launch medians, with a t interval on the log scale.

    The interval is that of the geometric mean of the launch medians, widened where needed to
    hold the median itself (skewed launches), so it never covers less than it says.

    Raises:
        ValueError: As launch_logs.
    """
    logs = launch_logs(samples)
    middle = statistics.median(logs)
    if len(logs) < 2:
        return Estimate(math.exp(middle), None, len(logs))
    mean = statistics.fmean(logs)
    half = t975(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = min(mean - half, middle), max(mean + half, middle)
    return Estimate(math.exp(middle), (math.exp(low), math.exp(high)), len(logs))


def ratio_interval(new: ByLaunch, old: ByLaunch, *, drift: float = 0.0) -> Ratio:
    """Ratio new / old of two independent sets of launches, with a t interval on the log scale.

    The variance is pooled: both sets are the same cell on the same device, and pooling keeps
    3 + 3 launches at four degrees of freedom.

    Args:
        new: Samples of the candidate.
        old: Samples of the baseline.
        drift: Relative shift between sittings that no repetition inside one sitting can show;
            the interval is widened by it on both sides. 0 when both ran in one sitting.

    Raises:
        ValueError: As launch_logs.
    """
    a, b = launch_logs(new), launch_logs(old)
    difference = statistics.fmean(a) - statistics.fmean(b)
    counts = (len(a), len(b))
    if min(counts) < 2:
        return Ratio(math.exp(difference), None, counts)
    df = len(a) + len(b) - 2
    pooled = ((len(a) - 1) * statistics.variance(a) + (len(b) - 1) * statistics.variance(b)) / df
    half = t975(df) * math.sqrt(pooled * (1 / len(a) + 1 / len(b))) + math.log1p(drift)
    interval = (math.exp(difference - half), math.exp(difference + half))
    return Ratio(math.exp(difference), interval, counts)


def min_detectable_change(samples: ByLaunch) -> float | None:
    """Smallest relative change that a second set of equal size and noise could prove.

    It is the half width of the ratio's 95 % interval between two such sets: a smaller change
    would leave 1 inside the interval. None with a single launch.
    """
    logs = launch_logs(samples)
    if len(logs) < 2:
        return None
    half = t975(2 * len(logs) - 2) * statistics.stdev(logs) * math.sqrt(2 / len(logs))
    return math.expm1(min(half, 50.0))


def spread(samples: ByLaunch) -> float | None:
    """Relative scatter of a metric: 0.05 is 5 %. None below two values.

    The larger of two standard deviations on the log scale: between launch medians, and the
    typical (median) one inside a launch. The second finds a device that slows down within
    every launch while the medians agree; one outlier in one launch doesn't count.
    """
    logs = launch_logs(samples)
    parts = []
    if len(logs) > 1:
        parts.append(statistics.stdev(logs))
    inside = [
        statistics.stdev([math.log(value) for value in values])
        for values in samples.values()
        if len(values) > 1
    ]
    if inside:
        parts.append(statistics.median(inside))
    return max(parts) if parts else None
