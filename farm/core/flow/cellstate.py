"""How far one cell of a run is: the notes that farm.core.flow.flow keeps of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from farm.core.plan import Cell
from farm.core.result import AttemptReport
from farm.core.runtime import DeviceRunResult


@dataclass(slots=True)
class CellState:
    """How far one cell is."""

    cell: Cell
    attempts: list[AttemptReport] = field(default_factory=list)
    lease_tries: int = 0
    #: Devices that failed it.
    avoid: frozenset[str] = frozenset()
    device: str | None = None
    started_at: str | None = None
    run: DeviceRunResult | None = None
    comparing: bool = False
    done: bool = False
