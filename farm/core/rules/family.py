"""Which losses of a night are regressions: the error of the whole night, and who looks twice. Pure.

A night judges some hundred comparisons; each at 5 % would cry wolf every night. So the p-values of
all gated comparisons of a run are judged together by Holm's step-down method, which keeps the
chance of any false REGRESSED in a clean night at `FAMILY` however the comparisons depend on each
other (Holm, "A simple sequentially rejective multiple test procedure", 1979).

A first look costs little and opens a second one: where its p-value is at most `SUSPECT` the cell is
measured again later in the run. The first look then counts as passed at `SUSPECT`, and the second
sitting, drawn independently of it, has only the rest to prove: the product is a valid p-value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from farm.core.result import CellResult

#: Chance of any false REGRESSED in a clean night.
FAMILY = 0.01
#: p-value of a first look from which on a cell gets a confirming sitting.
SUSPECT = 0.05
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


def combined(first: float, confirming: float | None) -> float:
    """Return the p-value of a first look and its confirming sitting, None where there was none."""
    if confirming is None or first > SUSPECT:
        return first
    return SUSPECT * confirming


def suspicious(results: Iterable[CellResult]) -> tuple[str, ...]:
    """Name the cells that need a confirming sitting: a loss was seen, side by side."""
    return tuple(
        result.cell_id
        for result in results
        if result.baseline is not None
        and result.baseline.method == "paired"
        and any(m.p is not None and m.p <= SUSPECT for m in result.baseline.metrics)
    )
