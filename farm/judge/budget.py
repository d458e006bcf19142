"""What a budget can decide: the smallest tolerance that a number of pairs tells apart, and back.

A tolerance is decided where a clean cell passes with all of its metrics, and a loss of twice the
tolerance is found, each with the chance asked for. Both follow from the scatter of launches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from farm.core.rules.family import SUSPECT, second_level
from farm.core.rules.interval import LEAST_PAIRS, LOOKING
from farm.judge.statistics import found_with_power

#: Chance that a clean cell passes with all of its metrics.
PASSES = 0.95
#: Chance that a loss of twice the tolerance is found.
FINDS = 0.99
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
    first = scatter * math.sqrt(2 / night.pairs) * LOOKING
    second = scatter * math.sqrt(2 / night.confirming)
    passes = found_with_power(first, night.pairs - 2, (0.025,), power=PASSES ** (1 / night.metrics))
    level = second_level(night.comparisons)
    each = math.sqrt(FINDS)
    finds = max(
        found_with_power(first, night.pairs - 2, (SUSPECT,), power=each),
        found_with_power(second, night.confirming - 2, (level,), power=each),
    )
    # The tolerance is r where ln(1 - r) is excluded, and where ln(1 - 2 r) lies so far below that.
    lost = math.exp(-finds)
    tolerance = max(-math.expm1(-passes), (1 - lost) / (2 - lost))
    return math.ceil(tolerance / _STEP - 1e-9) * _STEP
