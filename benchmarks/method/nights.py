"""Simulated nights: launches of two equal arms, A B B A, judged by today's rule and by the old one.

All series of a step are judged at once as arrays; benchmarks/verdicts.py compares a sample of them
with the project's own functions, so that what is simulated is what judges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from farm.core.rules.family import FAMILY, SURE, SUSPECT
from farm.core.rules.interval import LEAST_PAIRS, LOOKING

Array = NDArray[np.float64]
#: How far a sitting drifts, on the log scale.
DRIFT = 0.20


@dataclass(frozen=True)
class Scatter:
    """Where the differences between launches come from."""

    name: str
    #: Standard deviation between launches; what a recording shows is told for it too.
    sigma: float
    #: Logarithms of launch medians as recorded, [launches]; None: drawn from a normal distribution.
    recorded: Array | None = None


def pair_logs(
    random: np.random.Generator, scatter: Scatter, *, series: int, metrics: int, pairs: int
) -> Array:
    """Log ratios [series, metrics, pairs] of two equal arms in one sitting each.

    The metrics of a cell share their sitting's drift and have a scatter of their own.
    """
    launches = 2 * pairs
    if scatter.recorded is None:
        own = scatter.sigma * random.standard_normal((series, metrics, launches))
    else:
        own = _stretches(random, scatter.recorded, series * metrics, launches)
        own = own.reshape(series, metrics, launches)
    logs = own + _drift(random, series, launches)[:, np.newaxis, :]
    blocks = logs.reshape(series, metrics, -1, 2)
    differences: Array = blocks[..., 0] - blocks[..., 1]
    differences[..., 1::2] *= -1  # the second pair of A B B A has the baseline first
    return differences


def _drift(random: np.random.Generator, series: int, launches: int) -> Array:
    """Drift [series, launches]: a third each linear, a random walk, and one step."""
    at = np.arange(launches) / max(1, launches - 1)
    sign = random.choice([-1.0, 1.0], (series, 1))
    linear = sign * DRIFT * at
    walk = np.cumsum(random.standard_normal((series, launches)), axis=1) * DRIFT
    walk /= math.sqrt(launches)
    step = sign * DRIFT * (at >= random.random((series, 1)))
    kind = random.integers(0, 3, (series, 1))
    chosen: Array = np.where(kind == 0, linear, np.where(kind == 1, walk, step))
    return chosen


def _stretches(random: np.random.Generator, recorded: Array, count: int, length: int) -> Array:
    """Stretches of a recording in its order, from anywhere in it, forwards or backwards."""
    starts = random.integers(0, len(recorded), (count, 1))
    ways = random.choice([-1, 1], (count, 1))
    found: Array = recorded[(starts + ways * np.arange(length)) % len(recorded)]
    centred: Array = found - found.mean(axis=1, keepdims=True)
    return centred


def estimate(pairs: Array, *, looked: bool) -> tuple[Array, Array, int]:
    """Means and standard errors over the last axis, and degrees of freedom: pair_statistics."""
    count = pairs.shape[-1]
    mean = pairs.mean(axis=-1)
    turns = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
    centred = pairs - mean[..., np.newaxis]
    if count >= LEAST_PAIRS:
        drift = (turns * centred).mean(axis=-1)
        rest = ((centred - turns * drift[..., np.newaxis]) ** 2).sum(axis=-1)
        df = count - 2
    else:
        rest = (centred**2).sum(axis=-1)
        df = count - 1
    return mean, np.sqrt(rest / df / count) * (LOOKING if looked else 1.0), df


@dataclass(frozen=True)
class Judged:
    """What became of cells: arrays [series]."""

    #: Cells of which some metric is said to have regressed.
    regressed: NDArray[np.bool_]
    #: The same of the first metric, the one that a loss is made in.
    first_metric: NDArray[np.bool_]
    undecided: NDArray[np.bool_]
    #: Pairs that were measured, all sittings.
    pairs: Array


def seen_scatter(pairs: Array) -> float:
    """Scatter of a launch as the history of a cell shows it, by its pairs: drift is part of it."""
    _, error, _ = estimate(pairs, looked=False)
    return float(np.sqrt(np.mean(error**2) * pairs.shape[-1] / 2))


def _looks(most: int) -> list[int]:
    return list(range(min(LEAST_PAIRS, most), most + 1, 2))


def old_method(pairs: Array, regress: float) -> Judged:
    """Judge as before: one look at 95 %, whatever the number of comparisons and of pairs."""
    bound, most = math.log1p(-regress), pairs.shape[-1]
    series = pairs.shape[0]
    open_, taken = np.ones(series, bool), np.full(series, float(most))
    worse, better = np.zeros((2, *pairs.shape[:2]), bool)
    for count in _looks(most):
        mean, error, df = estimate(pairs[..., :count], looked=True)
        half = stats.t.isf(0.025, df) * error
        is_worse, is_better = mean + half < bound, mean - half >= bound
        worse[open_], better[open_] = is_worse[open_], is_better[open_]
        done = open_ & (is_worse | is_better).all(axis=1) & (count >= LEAST_PAIRS)
        taken[done] = count
        open_ &= ~done
    undecided = ~worse.any(axis=1) & ~better.all(axis=1)
    return Judged(worse.any(axis=1), worse[:, 0], undecided, taken)


def new_method(
    pairs: Array, confirming: Array, regress: float, *, comparisons: int = 240
) -> Judged:
    """Judge as farm.judge.night: least pairs, a confirming sitting, the error of the whole night.

    Holm's first step decides: among clean comparisons it is the only one that a loss passes.

    Args:
        pairs: The first look, [series, metrics, pairs].
        confirming: A sitting of its own for the suspicious, the same shape but for the pairs.
        regress: Loss that is accepted.
        comparisons: Gated comparisons of the night.
    """
    bound, most = math.log1p(-regress), pairs.shape[-1]
    series, metrics = pairs.shape[:2]
    if most < LEAST_PAIRS:
        nothing = np.zeros(series, bool)
        return Judged(nothing, nothing, ~nothing, np.full(series, float(most)))
    open_, taken = np.ones(series, bool), np.full(series, float(most))
    p, holds = np.ones((series, metrics)), np.zeros((series, metrics), bool)
    for count in _looks(most):
        mean, error, df = estimate(pairs[..., :count], looked=True)
        tail = stats.t.sf((bound - mean) / error, df)
        is_held = mean - stats.t.isf(0.025, df) * error >= bound
        p[open_], holds[open_] = tail[open_], is_held[open_]
        done = open_ & (is_held | (tail <= SURE)).all(axis=1)
        taken[done] = count
        open_ &= ~done
    mean, error, df = estimate(confirming, looked=False)
    second = stats.t.sf((bound - mean) / error, df)
    second_holds = mean - stats.t.isf(0.025, df) * error >= bound
    suspect = p <= SUSPECT
    again: NDArray[np.bool_] = np.asarray(suspect.any(axis=1))
    joined = np.where(suspect, SUSPECT * second, p)
    lost = (joined <= FAMILY / comparisons) & suspect & (second <= SUSPECT)
    decided = np.where(again[:, np.newaxis], holds | second_holds, holds) & ~lost
    decided &= ~suspect | second_holds
    undecided = ~lost.any(axis=1) & ~decided.all(axis=1)
    taken += np.where(again, confirming.shape[-1], 0)
    return Judged(lost.any(axis=1), lost[:, 0], undecided, taken)
