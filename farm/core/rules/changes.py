"""Nights at which a metric moved to another level and stayed there: drawn and told, never judged.

Method: PELT (Killick, Fearnhead and Eckley, "Optimal detection of changepoints with a linear
computational cost", JASA 2012) on logarithms, with the squared error around each segment's mean as
cost. The scatter of a night is taken from the steps between neighbouring nights, which one change
of level hardly touches. docs/decisions/change-points.md has the false-alarm rate by simulation.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Nights that a level lasts at least: a single odd night is no change.
LEAST_NIGHTS = 3
#: What another segment costs, in variances of a night, times the logarithm of the nights: of many,
#: and what more of few, whose scatter is hardly known. Chosen so that steady nights, 6 to 60 of
#: them, show a change in at most one of a hundred metrics.
PENALTY, FEW = 4.0, 120.0
#: Scatter that is assumed at least: counts and clocks come in steps.
LEAST_SCATTER = 0.005
#: Change of level that is told at least, as a share: what nobody would look into is left out.
LEAST_CHANGE = 0.02


@dataclass(frozen=True, slots=True)
class Change:
    """A change of level."""

    #: Place of the first night of the new level.
    place: int
    #: Geometric means of the levels on both sides.
    before: float
    after: float


def changes(values: Sequence[float | None]) -> tuple[Change, ...]:
    """Return the changes of level of a metric, oldest first.

    Args:
        values: One a night, oldest first; None, and what isn't positive, is a night without one.
    """
    known = [(place, math.log(v)) for place, v in enumerate(values) if v is not None and v > 0]
    logs = [log for _, log in known]
    if len(logs) < 2 * LEAST_NIGHTS:
        return ()
    sigma = max(_scatter(logs), LEAST_SCATTER)
    each = (PENALTY + FEW / len(logs)) * math.log(len(logs))
    starts = _starts(logs, each * sigma**2)
    ends = [*starts[1:], len(logs)]
    levels = [statistics.fmean(logs[a:b]) for a, b in zip(starts, ends, strict=True)]
    return tuple(
        Change(known[start][0], math.exp(before), math.exp(after))
        for start, (before, after) in zip(starts[1:], itertools.pairwise(levels), strict=True)
        if abs(math.expm1(after - before)) >= LEAST_CHANGE
    )


def _scatter(logs: Sequence[float]) -> float:
    """Standard deviation of a night, by the steps between neighbours without the largest."""
    steps = sorted(abs(b - a) for a, b in itertools.pairwise(logs))[:-1]
    return math.sqrt(statistics.fmean(step**2 for step in steps) / 2)


def _starts(logs: Sequence[float], penalty: float) -> list[int]:
    """Starts of the segments whose cost and number together are least; the first is 0."""
    sums = [0.0, *itertools.accumulate(logs)]
    squares = [0.0, *itertools.accumulate(log * log for log in logs)]

    def cost(a: int, b: int) -> float:
        total = sums[b] - sums[a]
        return squares[b] - squares[a] - total * total / (b - a)

    best, last = [-penalty], [0]
    candidates = [0]
    for end in range(1, len(logs) + 1):
        far = [start for start in candidates if end - start >= LEAST_NIGHTS]
        found = [(best[start] + cost(start, end) + penalty, start) for start in far]
        least, start = min(found, default=(math.inf, 0))
        best.append(least)
        last.append(start)
        # A start that is beaten without a penalty never becomes the best one later.
        beaten = {s for value, s in found if value - penalty > least}
        candidates = [s for s in candidates if s not in beaten]
        candidates.append(end)
    starts, end = [], len(logs)
    while end > 0:
        end = last[end]
        starts.append(end)
    return starts[::-1]
