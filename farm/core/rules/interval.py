"""Intervals and scatter of process launches: the arithmetic that site and judge share. Pure.

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

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

ByLaunch: TypeAlias = Mapping[int, Sequence[float]]

#: 97.5 % quantiles of Student's t for 1..30 degrees of freedom.
_T975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_Z975 = 1.959964
#: Whoever looks at an interval after every launch and stops when it is narrow stops more often
#: at lucky moments: an interval that claims 95 % holds the truth 90 to 92 % of the time then
#: (simulated, tests/unit/core/test_stopping.py). This much wider it holds it 94 to 96 %.
LOOKING = 1.15
#: Parts of a sequence of launches whose means show how much the device drifts: more see less of
#: what is slow, fewer leave hardly a degree of freedom.
PARTS = 4
#: Launches from which on an interval sees drift.
SEES_DRIFT = 2 * PARTS
#: Pairs below which no ratio is judged: two blocks of A B B A. Two pairs have one degree of freedom
#: between them, and are alike by luck once in a while.
LEAST_PAIRS = 4
#: Scatter of launches above which their numbers are called noisy, relative.
MAX_SPREAD = 0.05
#: Launches from which on that may be said: a standard deviation of three is known to a half, of 16
#: to a fifth.
KNOWS_SPREAD = 16


class Interval(NamedTuple):
    """A mean on the log scale and half of its 95 % interval; None with a single value."""

    mean: float
    half: float | None


def t975(df: int) -> float:
    """97.5 % quantile of Student's t; beyond 30 degrees of freedom by its expansion in 1/df."""
    if df < 1:
        raise ValueError("a t quantile needs at least one degree of freedom")
    if df <= len(_T975):
        return _T975[df - 1]
    z = _Z975
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)


def t_tail(t: float, df: int) -> float:
    """Chance that Student's t is above a value: its finite sum for whole degrees of freedom.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    if df < 1:
        raise ValueError("a t distribution needs at least one degree of freedom")
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    angle = math.atan2(t, math.sqrt(df))
    square = math.cos(angle) ** 2
    odd = df % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, df, 2):
        total += term
        term *= square * k / (k + 1)
    inside = math.sin(angle) * total
    if odd:
        inside = 2 / math.pi * (angle + inside)
    return (1 - inside) / 2


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


def mean_interval(logs: Sequence[float], *, looked: bool = False) -> Interval:
    """Student's t interval of the mean of values in the order in which they were measured.

    A device drifts: launches that follow each other are alike, and an interval that takes them for
    independent grows too narrow the more there are. So from eight on it is also made of the means
    of four parts of the sequence, and the wider of the two counts ("batch means": Law and Kelton,
    Simulation Modeling and Analysis, chapter 9).

    Args:
        logs: One value for each launch, or for each pair of launches.
        looked: The number of values was chosen by looking at them; see LOOKING.
    """
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return Interval(mean, None)
    half = _half(logs)
    if len(logs) >= SEES_DRIFT:
        half = max(half, _half(_parts(logs)))
    return Interval(mean, half * (LOOKING if looked else 1.0))


def _half(values: Sequence[float]) -> float:
    return t975(len(values) - 1) * _deviation(values) / math.sqrt(len(values))


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation; that of `statistics` is exact by way of fractions, and ten times slower.

    From the first value on, so that equal values have none at all.
    """
    shifted = [value - values[0] for value in values]
    mean = math.fsum(shifted) / len(shifted)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in shifted) / (len(shifted) - 1))


def _parts(logs: Sequence[float]) -> list[float]:
    """Means of `PARTS` parts of a sequence, as equal in length as can be."""
    ends = [round(len(logs) * part / PARTS) for part in range(PARTS + 1)]
    return [statistics.fmean(logs[a:b]) for a, b in itertools.pairwise(ends)]


class PairStatistics(NamedTuple):
    """A mean log ratio, its standard error, and the degrees of freedom of that."""

    mean: float
    error: float
    df: int

    def tail(self, bound: float) -> float:
        """Chance of a mean as far below a bound as this, where the true one isn't below it."""
        if self.error == 0:
            return 0.0 if self.mean < bound else 1.0
        return t_tail((bound - self.mean) / self.error, self.df)


def pair_statistics(logs: Sequence[float], *, looked: bool = False) -> PairStatistics:
    """Mean of pairs from a sequence A B B A ... and how well it is known.

    A steady drift makes neighbouring pairs differ by turns, one way and the other. That part is
    estimated and taken out of the scatter, for one degree of freedom; the mean keeps its value.

    Raises:
        ValueError: Fewer than LEAST_PAIRS pairs.
    """
    if len(logs) < LEAST_PAIRS:
        raise ValueError(f"{len(logs)} pairs judge nothing; {LEAST_PAIRS} are needed")
    mean = statistics.fmean(logs)
    turns = [1.0 if n % 2 == 0 else -1.0 for n in range(len(logs))]
    drift = statistics.fmean(turn * (log - mean) for turn, log in zip(turns, logs, strict=True))
    rest = sum((log - mean - turn * drift) ** 2 for turn, log in zip(turns, logs, strict=True))
    df = len(logs) - 2
    error = math.sqrt(rest / df / len(logs)) * (LOOKING if looked else 1.0)
    return PairStatistics(mean, error, df)


def pair_logs(candidate: ByLaunch, baseline: ByLaunch) -> list[float]:
    """Log ratios candidate / baseline of neighbouring launches of a sequence A B B A ...

    Launches of both arms that share a number were loaded at once and worked in turn, window by
    window: such a pair is the median of the log ratios of neighbouring windows, so that what drifts
    inside a launch cancels too. The launch stays the unit: layout and placement belong to it.

    Else the n-th launch of one arm goes with the n-th of the other: they ran directly after each
    other, so what drifts slowly meets both. In A B B A the first pair has the candidate first
    and the second has it last, so a steady drift enters with both signs and cancels in the mean.

    Raises:
        ValueError: As launch_logs.
    """
    shared = sorted(candidate.keys() & baseline.keys())
    if shared:
        return [_window_ratio(candidate[number], baseline[number]) for number in shared]
    pairs = zip(launch_logs(candidate), launch_logs(baseline), strict=False)
    return [new - old for new, old in pairs]


def _window_ratio(candidate: Sequence[float], baseline: Sequence[float]) -> float:
    if not all(0 < value < math.inf for value in (*candidate, *baseline)):
        raise ValueError("samples must be positive and finite")
    windows = zip(candidate, baseline, strict=False)
    return statistics.median(math.log(new / old) for new, old in windows)


def spread(samples: ByLaunch) -> float | None:
    """Relative scatter of a metric: 0.05 is 5 %. None below two values.

    The larger of two standard deviations on the log scale: between launch medians, and the
    typical (median) one inside a launch. The second finds a device that slows down within
    every launch while the medians agree; one outlier in one launch doesn't count.
    """
    logs = launch_logs(samples)
    parts = []
    if len(logs) > 1:
        parts.append(_deviation(logs))
    inside = [
        _deviation([math.log(value) for value in values])
        for values in samples.values()
        if len(values) > 1
    ]
    if inside:
        parts.append(statistics.median(inside))
    return max(parts) if parts else None
