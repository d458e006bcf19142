"""Which losses of a night are regressions: the error of the whole night, and who looks twice. Pure.

A night judges some hundred comparisons; each at 5 % would cry wolf every night. So the p-values of
all gated comparisons of a run are judged together by Holm's step-down method, which keeps the
chance of any false REGRESSED in a clean night at `FAMILY` however the comparisons depend on each
other (Holm, "A simple sequentially rejective multiple test procedure", 1979).

A first look costs little and opens a second one for the few cells that it leaves open: a sitting of
its own, later in the run, drawn independently. Where the first p-value was at most `SUSPECT` the
second has only the rest to prove; where it was larger, the second stands almost alone. `WEIGHT`
shares the error between the two ways, so that their union is a valid p-value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from farm.core.result import CellResult

#: Chance of any false REGRESSED in a clean night.
FAMILY = 0.01
#: p-value of a first look from which on a loss is suspected.
SUSPECT = 0.05
#: Share of the error for what the first look suspected; the rest is for what it left open.
WEIGHT = 0.8
#: How many times the budget of a first look a second sitting has at most. Twice misses losses where
#: a step fell inside a pair of both sittings. Cells that lost nothing end theirs early, so only the
#: few that did pay for all of it.
SECOND_BUDGET = 4
#: p-value that decides in one sitting whatever the night: 60 cells with four metrics each.
SURE = FAMILY / 240
#: Chance with which a loss shall be found whose size is told as the smallest that would be.
POWER = 0.95


def holm(p: Sequence[float], level: float = FAMILY) -> list[bool]:
    """Tell for each p-value whether its hypothesis is rejected at a family-wise level."""
    order = sorted(range(len(p)), key=lambda index: p[index])
    rejected = [False] * len(p)
    for rank, index in enumerate(order):
        if p[index] > level / (len(p) - rank):
            break
        rejected[index] = True
    return rejected


def combined(first: float, second: float | None) -> float:
    """Return the p-value of a first look and a second sitting, None where there was none."""
    if second is None:
        return first
    way = SUSPECT / WEIGHT if first <= SUSPECT else 1 / (1 - WEIGHT)
    return min(1.0, way * second)


def second_level(comparisons: int) -> float:
    """p-value that a second sitting needs about what the first one suspected."""
    return min(0.5, FAMILY / comparisons * WEIGHT / SUSPECT)


def second_sittings(results: Iterable[CellResult]) -> tuple[str, ...]:
    """Name the cells to be measured again side by side, the most suspicious first.

    A cell is one of them where a metric is undecided that launches could decide. A run that reaches
    its time limit has made the first ones.
    """
    found: list[tuple[float, str]] = []
    for result in results:
        if result.baseline is None or result.baseline.method != "paired":
            continue
        undecided = [
            m.p
            for m in result.baseline.metrics
            if m.p is not None and m.verdict in ("REGRESSED", "NOISY", "INSUFFICIENT")
        ]
        if undecided:
            found.append((min(undecided), result.cell_id))
    return tuple(cell_id for _, cell_id in sorted(found))
