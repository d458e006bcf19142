"""Decoding without a pause: how fast at first, when it slowed, where it settled. Pure.

The work is fixed beforehand, by the rate of the launches before it, so that a runner needs no
clock of its own: a device that slows down takes longer than it was asked to.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

#: The first part: a minute, or this share of a shorter run.
FIRST_S, FIRST_SHARE = 60.0, 0.1
#: Points of the curve.
POINTS = 60
#: Share of the first rate below which a device counts as slowed, and for how many points in a row.
SLOWED, IN_A_ROW = 0.9, 3
#: How far the halves of the last third may differ where it counts as settled.
SETTLED = 0.05
#: How much slower than before the run may become, at most, before its launch is ended.
SLOWEST = 5.0


class Part(NamedTuple):
    """One window: when it began, seconds from the first, its tokens, and how long it took."""

    t_s: float
    tokens: int
    duration_s: float


class Course(NamedTuple):
    """What a run of windows shows."""

    seconds: float
    first_tok_s: float
    first_s: float
    steady_tok_s: float
    settled: bool
    throttled_after_s: float | None
    #: Seconds since the start, and tok/s.
    curve: tuple[tuple[float, float], ...]
    #: Rates of the first part and of the last third, window by window.
    first: tuple[float, ...]
    steady: tuple[float, ...]


def repetitions(tokens: int, rate_tok_s: float, seconds: float) -> int:
    """Return how many windows of so many tokens take about so long."""
    return max(1, math.ceil(seconds * rate_tok_s / tokens))


def course(parts: Sequence[Part]) -> Course:
    """Read the course of a run off its windows, in order.

    Raises:
        ValueError: There is none.
    """
    if not parts:
        raise ValueError("no windows")
    end = parts[-1].t_s + parts[-1].duration_s
    first_s = min(FIRST_S, FIRST_SHARE * end)
    first = [p for p in parts if p.t_s < first_s]
    last = [p for p in parts if p.t_s >= end * 2 / 3] or [parts[-1]]
    curve = _curve(parts, end)
    begin = _rate(first)
    halves = [_rate(half) for half in (last[: len(last) // 2], last[len(last) // 2 :]) if half]
    return Course(
        seconds=end,
        first_tok_s=begin,
        first_s=first_s,
        steady_tok_s=_rate(last),
        settled=len(halves) == 2 and abs(halves[1] / halves[0] - 1) <= SETTLED,
        throttled_after_s=_slowed_after(curve, begin),
        curve=curve,
        first=tuple(p.tokens / p.duration_s for p in first),
        steady=tuple(p.tokens / p.duration_s for p in last),
    )


def _rate(parts: Sequence[Part]) -> float:
    return sum(p.tokens for p in parts) / sum(p.duration_s for p in parts)


def _curve(parts: Sequence[Part], end: float) -> tuple[tuple[float, float], ...]:
    step = end / POINTS
    groups = itertools.groupby(parts, key=lambda p: int(p.t_s / step))
    return tuple((round(number * step, 3), _rate(list(found))) for number, found in groups)


def _slowed_after(curve: Sequence[tuple[float, float]], first: float) -> float | None:
    """When the rate fell below nine tenths of the first, and half of the rest stays there."""
    for place in range(len(curve) - IN_A_ROW + 1):
        few = curve[place : place + IN_A_ROW]
        rest = statistics.median(rate for _, rate in curve[place:])
        if max(rate for _, rate in few) < SLOWED * first and rest < SLOWED * first:
            return few[0][0]
    return None
