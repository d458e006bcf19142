"""Simulated nights: pairs of two equal arms, judged by today's rule and by the old one.

All series of a step are judged at once as arrays; benchmarks/verdicts.py and a test compare samples
of them with the project's own functions, so that what is simulated is what judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from farm.core.rules.family import FAMILY, SURE, SUSPECT, WEIGHT
from farm.core.rules.interval import LEAST_PAIRS, LOOKING

Array = NDArray[np.floating[Any]]
Truths = NDArray[np.bool_]
#: How the arms of a pair are measured: two launches, or one of both whose windows take turns.
Way = Literal["alone", "turn"]
#: How far a sitting drifts, on the log scale.
DRIFT = 0.20
#: Pairs in a row that a recording's stretches have: what drifts, and comes and goes, does it there.
BLOCK = 8
#: Time between the two windows of a pair in turn, as a share of their launch: there are four
#: windows or more of each arm and of each metric, and a warm-up.
GAP = 1 / 16


@dataclass(frozen=True)
class Scatter:
    """Where the differences between launches come from."""

    name: str
    #: Standard deviation between launches; what a recording shows is told for it too.
    sigma: float
    #: Logarithms of launch medians as recorded, [launches]; None: drawn from a normal distribution.
    recorded: Array | None = None
    #: Log ratios of pairs in turn as recorded, [launches]; None: there is no such recording.
    in_turn: Array | None = None
    #: Windows of each arm in such a launch.
    windows: int = 1
    #: What a launch in turn costs of what two launches alone do.
    turn_cost: float = 1.0


def pair_logs(
    random: np.random.Generator,
    scatter: Scatter,
    *,
    series: int,
    metrics: int,
    pairs: int,
    way: Way = "alone",
    block: int = BLOCK,
) -> Array:
    """Log ratios [series, metrics, pairs] of two equal arms in one sitting each.

    The metrics of a cell share their sitting's drift and have a scatter of their own. `block` is
    how many pairs in a row come from one place of a recording.
    """
    if way == "turn":
        return _turn_logs(random, scatter, series, metrics, pairs, block)
    launches = 2 * pairs
    if scatter.recorded is None:  # the difference of two independent launches
        own = _normal(random, (series, metrics, pairs))
        own *= np.float32(math.sqrt(2) * scatter.sigma)
    else:
        at = _stretches(random, len(scatter.recorded), series * metrics, launches, 2 * block)
        own = _differences(scatter.recorded[at].reshape(series, metrics, launches))
    own += _differences(_drift(random, series, launches))[:, np.newaxis]
    return own


def _differences(launches: Array) -> Array:
    """Of the two launches of each pair, [..., pairs], in the order A B B A."""
    found: Array = launches[..., 0::2] - launches[..., 1::2]
    found[..., 1::2] *= -1  # the second pair has the baseline first
    return found


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal numbers of single precision, which are twice as fast: there are billions."""
    return random.standard_normal(shape, dtype=np.float32)


def _signs(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    found: Array = (2 * random.integers(0, 2, shape, np.int8) - 1).astype(np.float32)
    return found


def _drift(random: np.random.Generator, series: int, launches: int) -> Array:
    """Drift [series, launches]: a third each linear, a random walk, and one step."""
    at = (np.arange(launches) / max(1, launches - 1)).astype(np.float32)
    kind = random.integers(0, 3, series)
    sign = _signs(random, (series, 1)) * np.float32(DRIFT)
    found = np.empty((series, launches), np.float32)
    linear, walk, step = (kind == number for number in range(3))
    found[linear] = sign[linear] * at
    steps = _normal(random, (int(walk.sum()), launches))
    found[walk] = np.cumsum(steps, axis=1) * np.float32(DRIFT / math.sqrt(launches))
    found[step] = sign[step] * (at >= random.random((int(step.sum()), 1)))
    return found


def _turn_logs(
    random: np.random.Generator,
    scatter: Scatter,
    series: int,
    metrics: int,
    pairs: int,
    block: int,
) -> Array:
    """The same of launches in turn."""
    recorded, windows = scatter.in_turn, scatter.windows
    assert recorded is not None
    at = _stretches(random, len(recorded), series * metrics, pairs, block)
    # The arms are the same program: which of them is called the candidate is free.
    sign = np.repeat(_signs(random, (series * metrics, -(-pairs // block))), block, axis=1)
    own = (sign[:, :pairs] * recorded[at]).reshape(series, metrics, pairs)
    found: Array = own + _drift_in_turn(random, series, pairs, windows)[:, np.newaxis]
    return found


def _drift_in_turn(random: np.random.Generator, series: int, pairs: int, windows: int) -> Array:
    """What the same drift does to pairs in turn, [series, pairs], as if they were means.

    They are medians of the ratios of neighbouring windows, which a step or a jump moves less. The
    lead changes from window to window, and from launch to launch.
    """
    between = GAP / pairs
    leads = (1 - 2 * (np.arange(pairs) % 2)).astype(np.float32)
    sign = _signs(random, (series, 1))
    linear = sign * DRIFT * between * leads / windows
    walk = _normal(random, (series, pairs)) * DRIFT * math.sqrt(between / windows)
    # A step counts where it falls between the two windows of a pair.
    hit = np.zeros((series, pairs), np.float32)
    inside = random.random(series) < GAP * windows
    hit[inside, random.integers(0, pairs, int(inside.sum()))] = DRIFT / windows
    kind = random.integers(0, 3, (series, 1))
    chosen: Array = np.where(kind == 0, linear, np.where(kind == 1, walk, sign * hit))
    return chosen


def _stretches(
    random: np.random.Generator, recorded: int, count: int, length: int, block: int
) -> NDArray[np.int64]:
    """Places of stretches of a recording in its order, from anywhere in it, either way.

    Longer ones than a block are put together (a moving block bootstrap): a recording of minutes
    would give hardly any others that long.
    """
    blocks = -(-length // block)
    starts = random.integers(0, recorded, (count, blocks, 1))
    ways = random.choice([-1, 1], (count, blocks, 1))
    steps = np.arange(block, dtype=np.int64)
    places = np.asarray((starts + ways * steps) % recorded, np.int64)
    return places.reshape(count, blocks * block)[:, :length]


def estimate(pairs: Array, *, looked: bool) -> tuple[Array, Array, int]:
    """Means and standard errors over the last axis, and degrees of freedom: pair_statistics."""
    count = pairs.shape[-1]
    mean = pairs.mean(axis=-1)
    turns = np.where(np.arange(count) % 2 == 0, 1.0, -1.0).astype(pairs.dtype)
    centred = pairs - mean[..., np.newaxis]
    if count >= LEAST_PAIRS:
        drift = (turns * centred).mean(axis=-1)
        rest = ((centred - turns * drift[..., np.newaxis]) ** 2).sum(axis=-1)
        df = count - 2
    else:
        rest = (centred**2).sum(axis=-1)
        df = count - 1
    return mean, np.sqrt(rest / df / count) * (LOOKING if looked else 1.0), df


@cache
def limit(level: float, df: int) -> float:
    """Value above which Student's t lies with so small a chance."""
    return float(stats.t.isf(level, df))


@dataclass(frozen=True)
class Judged:
    """What became of cells: arrays [series]."""

    #: Cells of which some metric is said to have regressed.
    regressed: Truths
    #: The same of the first metric, the one that a loss is made in.
    first_metric: Truths
    undecided: Truths
    #: Pairs that were measured, all sittings.
    pairs: Array


def seen_scatter(pairs: Array) -> float:
    """Scatter of a launch as the history of a cell shows it, by its pairs: drift is part of it."""
    _, error, _ = estimate(pairs, looked=False)
    return float(np.sqrt(np.mean(error**2) * pairs.shape[-1] / 2))


def lag_one(pairs: Array) -> float:
    """Correlation of neighbouring pairs, [pairs], without what changes sides with the lead."""
    turns = 1 - 2 * (np.arange(len(pairs)) % 2)
    rest = pairs - pairs.mean()
    rest = rest - turns * (turns * rest).mean()
    return float((rest[1:] * rest[:-1]).sum() / (rest**2).sum())


def coverage(pairs: Array) -> float:
    """Share of the 95 % intervals of equal arms that hold their ratio, 1."""
    mean, error, df = estimate(pairs, looked=False)
    return float((np.abs(mean) <= limit(0.025, df) * error).mean())


@dataclass(frozen=True)
class _Looks:
    """What every look at a sitting sees, from the least pairs to all: [series, metrics, looks]."""

    counts: NDArray[np.int64]
    mean: Array
    error: Array

    def beyond(self, level: float) -> Array:
        """Quantile of Student's t at each look, [looks]."""
        least = [limit(level, int(count) - 2) for count in self.counts]
        return np.array(least)

    def stopped(self, done: Truths) -> tuple[NDArray[np.int64], Truths]:
        """Where each series ended, [series]: its first look that is `done`, else the last one."""
        ended: Truths = np.asarray(done.any(axis=1))
        return np.where(ended, done.argmax(axis=1), done.shape[1] - 1), ended


def _looks(pairs: Array) -> _Looks:
    """`estimate` of every look at once; whoever measures looks after each block of A B B A."""
    # Squares of single precision would leave too little of a small rest.
    even, odd = (pairs[..., start::2].astype(np.float64) for start in (0, 1))
    counts = np.arange(LEAST_PAIRS, pairs.shape[-1] + 1, 2)

    def sums(values: Array) -> Array:
        whole: Array = np.cumsum(values, axis=-1)
        return whole[..., LEAST_PAIRS // 2 - 1 :]

    mean, drift = sums(even + odd) / counts, sums(even - odd) / counts
    rest = sums(even * even + odd * odd) - counts * (mean**2 + drift**2)
    error = np.sqrt(np.maximum(rest, 0.0) / (counts - 2) / counts) * LOOKING
    return _Looks(counts, mean, error)


def _at(values: Truths | Array, look: NDArray[np.int64]) -> Any:
    """Values [series, metrics] at one look of each series."""
    return np.take_along_axis(values, look[:, np.newaxis, np.newaxis], axis=-1)[..., 0]


def old_method(pairs: Array, regress: float) -> Judged:
    """Judge as before: one look at 95 %, whatever the number of comparisons and of pairs."""
    bound, most = math.log1p(-regress), pairs.shape[-1]
    if most < LEAST_PAIRS:  # never ended early
        mean, error, df = estimate(pairs, looked=True)
        half = limit(0.025, df) * error
        worse, better = mean + half < bound, mean - half >= bound
        taken = np.full(pairs.shape[0], float(most))
    else:
        looks = _looks(pairs)
        half = looks.beyond(0.025) * looks.error
        is_worse, is_better = looks.mean + half < bound, looks.mean - half >= bound
        at, _ = looks.stopped(np.asarray((is_worse | is_better).all(axis=1)))
        worse, better = _at(is_worse, at), _at(is_better, at)
        taken = looks.counts[at].astype(float)
    lost: Truths = np.asarray(worse.any(axis=1))
    undecided: Truths = np.asarray(~lost & ~better.all(axis=1))
    return Judged(lost, worse[:, 0], undecided, taken)


def new_method(
    pairs: Array, confirming: Callable[[Truths], Array], regress: float, *, comparisons: int = 240
) -> Judged:
    """Judge as farm.judge.night: least pairs, a second sitting of what is open, one family.

    Holm's first step decides: among clean comparisons it is the only one that a loss passes.

    Args:
        pairs: The first look, [series, metrics, pairs].
        confirming: Gives a sitting of its own for the cells that the first leaves open.
        regress: Loss that is accepted.
        comparisons: Gated comparisons of the night.
    """
    bound, most = math.log1p(-regress), pairs.shape[-1]
    series, metrics = pairs.shape[:2]
    if most < LEAST_PAIRS:
        nothing = np.zeros(series, bool)
        return Judged(nothing, nothing, ~nothing, np.full(series, float(most)))
    looks = _looks(pairs)
    below = (bound - looks.mean) / looks.error
    is_held = -below >= looks.beyond(0.025)
    decided = np.asarray((is_held | (below >= looks.beyond(SURE))).all(axis=1))
    at, _ = looks.stopped(decided)
    suspect, holds = _at(below >= looks.beyond(SUSPECT), at), _at(is_held, at)
    taken = looks.counts[at].astype(float)
    lost, undecided = np.zeros((series, metrics), bool), np.zeros(series, bool)
    again: Truths = np.asarray(~holds.all(axis=1))
    if again.any():
        beyond, df, second_pairs = _confirmed(confirming(again), bound)
        level = FAMILY / comparisons
        proven = np.where(
            suspect[again],
            beyond >= limit(level * WEIGHT / SUSPECT, df),
            beyond >= limit(level * (1 - WEIGHT), df),
        )
        left = ~holds[again] & (-beyond < limit(0.025, df))
        lost[again] = left & proven & (beyond >= limit(SUSPECT, df))
        undecided[again] = left.any(axis=1) & ~lost[again].any(axis=1)
        taken[again] += second_pairs
    return Judged(np.asarray(lost.any(axis=1)), lost[:, 0], undecided, taken)


def _confirmed(pairs: Array, bound: float) -> tuple[Array, int, Array]:
    """Judge second sittings, which end early where no metric has lost more than the bound.

    Returns:
        How far each metric lies below the bound, in standard errors: minus infinity where its
        sitting ended early; the degrees of freedom of the others; and pairs measured.
    """
    looks = _looks(pairs)
    below = (bound - looks.mean) / looks.error
    at, early = looks.stopped(np.asarray((-below >= looks.beyond(0.025)).all(axis=1)))
    found: Array = np.where(early[:, np.newaxis], -np.inf, below[..., -1])
    return found, pairs.shape[-1] - 2, looks.counts[at].astype(float)
