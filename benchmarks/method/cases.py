"""One line of the table of simulated verdicts: how its cells are measured, and their sittings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.method.nights import (
    Array,
    Judged,
    Scatter,
    Truths,
    Way,
    coverage,
    new_method,
    old_method,
    pair_logs,
)
from farm.core.rules.family import SECOND_BUDGET
from farm.judge.budget import Night, pairs_in

CELLS, METRICS = 60, 4


@dataclass(frozen=True)
class Case:
    """What one line of the table is about."""

    scatter: Scatter
    budget_s: float
    launch_s: float
    way: Way
    #: `old` or `new`.
    rule: str

    @property
    def shape(self) -> Night:
        """Pairs of a night in that budget."""
        cost = self.scatter.turn_cost if self.way == "turn" else 1.0
        pairs = pairs_in(self.budget_s, self.launch_s * cost)
        return Night(pairs, SECOND_BUDGET * pairs, METRICS, CELLS * METRICS)

    def history(self, seed: int) -> Array:
        """What earlier nights of such cells showed."""
        random, pairs = np.random.default_rng(seed + 1), 2 * self.shape.pairs
        return pair_logs(
            random, self.scatter, series=500, metrics=METRICS, pairs=pairs, way=self.way
        )

    def covers(self, seed: int) -> float:
        """How often an interval of equal arms holds 1, launches drawn one by one.

        Stretches of a recording of minutes are too few: shuffled, one gives 74 to 100 %.
        """
        series = pair_logs(
            np.random.default_rng(seed + 3), self.scatter, series=6000, metrics=1,
            pairs=self.shape.pairs, way=self.way, block=1,
        )  # fmt: skip
        return coverage(series)

    def judged(self, sittings: Sittings, tolerance: float) -> Judged:
        """Judge cells by what their sittings gave."""
        if self.rule == "old":
            return old_method(sittings.first, tolerance)
        comparisons = self.shape.comparisons
        return new_method(sittings.first, sittings.second, tolerance, comparisons=comparisons)

    def sittings(self, random: np.random.Generator, series: int, loss: float = 0.0) -> Sittings:
        """Sittings of cells whose first metric has lost so much."""
        return Sittings(self, random, series, loss)


class Sittings:
    """The two sittings of some cells; rules that judge the same ones draw them once."""

    def __init__(self, case: Case, random: np.random.Generator, series: int, loss: float) -> None:
        self._case, self._random = case, random
        self._series, self._loss = series, loss

    @cached_property
    def first(self) -> Array:
        """Pairs of the first look, [series, metrics, pairs]."""
        return self._drawn(self._case.shape.pairs)

    def second(self, cells: Truths) -> Array:
        """Pairs of the second sitting of those cells that need one."""
        return self._whole_second[cells]

    @cached_property
    def _whole_second(self) -> Array:
        return self._drawn(self._case.shape.confirming)

    def _drawn(self, pairs: int) -> Array:
        case = self._case
        logs = pair_logs(
            self._random, case.scatter, series=self._series, metrics=METRICS, pairs=pairs,
            way=case.way,
        )  # fmt: skip
        logs[:, 0] += math.log1p(-self._loss)
        return logs
