"""What a budget can decide: the smallest tolerance that a number of pairs tells apart, and back.

A tolerance is decided where a clean cell passes with all of its metrics, in its first look or in
the second sitting that an open cell gets, and a loss of twice the tolerance is found, each with the
chance asked for. All follows from the scatter of launches. A cheap first look at every cell and a
long second one at few of them decide more than one strict look does; how few is `AGAIN`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from farm.core.rules.family import FAMILY, SUSPECT, WEIGHT
from farm.core.rules.interval import LEAST_PAIRS, LOOKING
from farm.judge.statistics import chance_above, least_shift, t_limit

#: Chance that a clean cell passes with all of its metrics.
PASSES = 0.95
#: Chance that a loss of twice the tolerance is found: some more than is promised, since a device
#: drifts.
FINDS = 0.995
#: Share of the clean cells that may need a second sitting: what first looks save by stopping early
#: pays for about so many, since a second sitting that finds no loss ends early too.
AGAIN = 0.2
#: Tolerances that a budget is asked for, as shares: fine enough for people.
_STEP = 0.001


@dataclass(frozen=True, slots=True)
class Night:
    """How a night is measured."""

    #: Pairs of launches of a first look, and of a confirming sitting.
    pairs: int
    confirming: int
    #: Gated metrics of a cell, and comparisons of the whole night.
    metrics: int = 4
    comparisons: int = 240


def pairs_in(budget_s: float, launch_s: float) -> int:
    """Pairs of launches that fit a budget in whole blocks of A B B A; never less than a block."""
    return 2 * max(1, int(budget_s / (4 * launch_s)))


def decidable(scatter: float, night: Night) -> float | None:
    """Return the smallest tolerance that a night decides for a cell, as a share.

    Args:
        scatter: Standard deviation of the logarithm of a launch's rate.
        night: How it is measured.

    Returns:
        None where the pairs are too few to judge anything.
    """
    if night.pairs < LEAST_PAIRS or night.confirming < LEAST_PAIRS:
        return None
    error = scatter * math.sqrt(2 / night.pairs)
    passes, finds = _shifts(night)
    # The tolerance is r where ln(1 - r) is excluded, and where ln(1 - 2 r) lies so far below that.
    lost = math.exp(-finds * error)
    tolerance = max(-math.expm1(-passes * error), (1 - lost) / (2 - lost))
    return math.ceil(tolerance / _STEP - 1e-9) * _STEP


@cache
def _shifts(night: Night) -> tuple[float, float]:
    """How far a bound has to lie from a clean cell, and a loss beyond it, in standard errors."""
    df, df2 = night.pairs - 2, night.confirming - 2
    longer = math.sqrt(night.confirming / night.pairs)
    level = FAMILY / night.comparisons

    def above(chance: float, df: int, shift: float) -> float:
        return chance_above(LOOKING * t_limit(chance, df), df, shift)

    def passes(shift: float) -> float:
        first = above(0.025, df, shift) ** night.metrics
        second = above(0.025, df2, longer * shift) ** night.metrics
        return min(first + (1 - first) * second - PASSES, first - (1 - AGAIN))

    def finds(shift: float) -> float:
        suspected = above(SUSPECT, df, shift)
        proven, alone = (
            above(level * share, df2, longer * shift) for share in (WEIGHT / SUSPECT, 1 - WEIGHT)
        )
        return suspected * proven + (1 - suspected) * alone - FINDS

    return least_shift(passes, 4.0), least_shift(finds, 4.0)
