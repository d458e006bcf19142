"""Medians, ratios and what they can show, with the process launch as the unit of evidence.

The intervals themselves, and their sources, are in farm.core.rules.interval.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from farm.core.rules.family import POWER
from farm.core.rules.interval import (
    LEAST_PAIRS,
    ByLaunch,
    launch_logs,
    mean_interval,
    pair_logs,
    pair_statistics,
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
    #: Standard error of its logarithm and the degrees of freedom of that; None with the interval.
    error: float | None = None
    df: int = 0


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


def ratio_interval(new: ByLaunch, old: ByLaunch) -> Ratio:
    """Ratio new / old of two independent sets of launches, with a t interval on the log scale.

    The variance is pooled: both sets are the same cell on the same device, and pooling keeps
    3 + 3 launches at four degrees of freedom.

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
    error = math.sqrt(pooled * (1 / len(a) + 1 / len(b)))
    half = t975(df) * error
    interval = (math.exp(difference - half), math.exp(difference + half))
    return Ratio(math.exp(difference), interval, counts, error, df)


def paired_interval(candidate: ByLaunch, baseline: ByLaunch, *, looked: bool = False) -> Ratio:
    """Ratio candidate / baseline of launches that alternated A B B A, with a t interval over pairs.

    Below LEAST_PAIRS pairs there is no interval: two pairs that agree by luck would prove anything.

    Raises:
        ValueError: As launch_logs.
    """
    logs = pair_logs(candidate, baseline)
    counts = (len(candidate), len(baseline))
    if len(logs) < LEAST_PAIRS:
        return Ratio(math.exp(statistics.fmean(logs)), None, counts)
    found = pair_statistics(logs, looked=looked)
    half = t975(found.df) * found.error
    interval = (math.exp(found.mean - half), math.exp(found.mean + half))
    return Ratio(math.exp(found.mean), interval, counts, found.error, found.df)


def min_detectable_change(samples: ByLaunch) -> float | None:
    """Smallest relative change that a second set of equal size and noise would show.

    Shown is what the 95 % interval of the ratio leaves 1 outside of, with 95 % power. None with a
    single launch.
    """
    logs = launch_logs(samples)
    if len(logs) < 2:
        return None
    error = statistics.stdev(logs) * math.sqrt(2 / len(logs))
    return math.expm1(min(found_with_power(error, 2 * len(logs) - 2, (0.025,)), 50.0))


def found_with_power(
    error: float, df: int, levels: Sequence[float], *, power: float = POWER
) -> float:
    """Smallest shift of a mean that one-sided t tests all find together with some power.

    Args:
        error: Standard error of the mean, the same in every test.
        df: Its degrees of freedom.
        levels: Level of each test; the tests are independent of each other.
        power: Chance of finding it.
    """
    return error * _errors_found(df, tuple(levels), power) if error else 0.0


@cache
def _errors_found(df: int, levels: tuple[float, ...], power: float) -> float:
    """The same in standard errors; a run asks it of a few shapes, hundreds of times."""
    limits = [t_limit(level, df) for level in levels]
    return least_shift(
        lambda shift: math.prod(chance_above(limit, df, shift) for limit in limits) - power,
        max(limits) + 10.0,
    )


# scipy.special only: scipy.stats and scipy.optimize are half of the time in which a command starts.


def t_limit(level: float, df: int) -> float:
    """The value that Student's t exceeds with this chance."""
    from scipy import special

    return -float(special.stdtrit(df, level))


def chance_above(limit: float, df: int, shift: float) -> float:
    """Chance that a t statistic exceeds the limit where the truth is `shift` standard errors."""
    from scipy import special

    below = float(special.nctdtr(df, shift, limit))
    if math.isnan(below):  # it underflowed: the limit is out of reach of the one or the other
        return float(shift > limit)
    return 1.0 - below


def least_shift(excess: Callable[[float], float], high: float) -> float:
    """Where a growing function of a shift becomes positive, to 1e-3; `high` is a first guess."""
    low = 0.0
    while excess(high) < 0:
        low, high = high, 2 * high
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return high


def most_of(times: Sequence[int]) -> tuple[int, int]:
    """Range of most of some times: without a tenth at either end."""
    ordered = sorted(times)
    tenth = len(ordered) // 10
    return ordered[tenth], ordered[-1 - tenth]
