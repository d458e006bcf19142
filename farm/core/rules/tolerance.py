"""The loss a cell is held to: what the config says, or what its budget decides (`auto`). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from farm.core.plan import Cell
from farm.core.spec import RunSpec

#: With `auto`, of a speed whose scatter no night has shown yet, or that nothing could decide.
UNKNOWN = 0.15


def speed_tolerance(spec: RunSpec, cell: Cell, metric: str) -> float:
    """Return the largest loss of one speed that is accepted, as a share."""
    if not spec.regress_auto:
        return spec.regress
    known = next((one.tolerance for one in cell.decides if one.metric == metric), None)
    return UNKNOWN if known is None else known


def told_apart(spec: RunSpec, cell: Cell, metrics: Iterable[str]) -> float:
    """Return what the launches of a cell have to tell apart: its smallest accepted loss."""
    return min((speed_tolerance(spec, cell, metric) for metric in metrics), default=spec.regress)
