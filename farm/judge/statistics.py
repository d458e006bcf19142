"""Medians, ratios and what they can show, with the process launch as the unit of evidence.

The intervals themselves, and their sources, are in farm.core.rules.interval.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from farm.core.rules.interval import (
    ByLaunch,
    launch_logs,
    mean_interval,
    pair_interval,
    pair_logs,
    t975,
)


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


def median_interval(samples: ByLaunch, *, looked: bool = False) -> Estimate:
    """Median over launches of the launch medians, with a t interval on the log scale.

    The interval is that of the geometric mean of the launch medians, widened where needed to
    hold the median itself (skewed launches), so it never covers less than it says.

    Args:
        samples: What was measured.
        looked: The number of launches was chosen by looking at them.

    Raises:
        ValueError: As launch_logs.
    """
    logs = launch_logs(samples)
    middle = statistics.median(logs)
    mean, half = mean_interval(logs, looked=looked)
    if half is None:
        return Estimate(math.exp(middle), None, len(logs))
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


def paired_interval(candidate: ByLaunch, baseline: ByLaunch, *, looked: bool = False) -> Ratio:
    """Ratio candidate / baseline of launches that alternated A B B A, with a t interval over pairs.

    Raises:
        ValueError: As launch_logs.
    """
    mean, half = pair_interval(pair_logs(candidate, baseline), looked=looked)
    counts = (len(candidate), len(baseline))
    if half is None:
        return Ratio(math.exp(mean), None, counts)
    return Ratio(math.exp(mean), (math.exp(mean - half), math.exp(mean + half)), counts)


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


def most_of(times: Sequence[int]) -> tuple[int, int]:
    """Range of most of some times: without a tenth at either end."""
    ordered = sorted(times)
    tenth = len(ordered) // 10
    return ordered[tenth], ordered[-1 - tenth]
