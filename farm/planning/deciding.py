"""What the budget decides, cell by cell and metric by metric, by the scatter of earlier nights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from farm.core.errors import StoreError
from farm.core.plan import Cell, Decides, Plan
from farm.core.rules.family import SECOND_BUDGET
from farm.core.rules.scatter import Scatter, together
from farm.core.spec import RunSpec
from farm.judge.budget import Night, decidable, pairs_in
from farm.paths import history_db
from farm.state.history import History

log = logging.getLogger(__name__)

#: A tolerance from here on decides nothing that anybody asks.
BLIND = 0.5
#: Longest budget that is named as what a tolerance would need, seconds.
LONGEST_S = 3600.0


def with_decisions(spec: RunSpec, plan: Plan, home: Path) -> Plan:
    """Return the plan whose cells say what their budget decides; nothing where no night is known.

    An index that can't be read is no reason to refuse a plan: it says so, and knows nothing.
    """
    path = history_db(home)
    if not path.exists():
        return plan
    try:
        with contextlib.closing(History(path)) as history:
            known = {cell.cell_id: history.scatter(cell.cell_id) for cell in plan.cells}
    except StoreError as error:
        log.warning("what the budget decides is not known: %s", error)
        return plan
    comparisons = sum(map(len, known.values()))
    cells = tuple(
        replace(cell, decides=tuple(_decides(spec, cell, known[cell.cell_id], comparisons)))
        for cell in plan.cells
    )
    return replace(plan, cells=cells)


def _decides(
    spec: RunSpec, cell: Cell, known: Mapping[str, list[Scatter]], comparisons: int
) -> list[Decides]:
    found = []
    for metric, nights in sorted(known.items()):
        one = together(nights)
        pairs = min(pairs_in(spec.workload.budget_s, one.launch_s), spec.workload.max_launches)
        tolerance = _tolerance(one, pairs, len(known), comparisons)
        needs_s = None
        if not spec.regress_auto and (tolerance is None or tolerance > spec.regress):
            needs_s = _needs_s(one, spec.regress, len(known), comparisons)
        found.append(Decides(metric, tolerance, pairs, one.sigma, len(nights), needs_s))
    return found


def _tolerance(one: Scatter, pairs: int, metrics: int, comparisons: int) -> float | None:
    night = Night(pairs, SECOND_BUDGET * pairs, metrics, max(metrics, comparisons))
    found = decidable(one.sigma, night)
    return None if found is None or found >= BLIND else found


def _needs_s(one: Scatter, regress: float, metrics: int, comparisons: int) -> float | None:
    """Return the budget that would decide a tolerance, seconds; None: more than anybody waits."""
    pairs = 4
    while pairs * 2 * one.launch_s <= LONGEST_S:
        found = _tolerance(one, pairs, metrics, comparisons)
        if found is not None and found <= regress:
            return pairs * 2 * one.launch_s
        pairs += 2 * max(1, pairs // 16)
    return None
