"""The cells of a run: which are open, by artifact, and the results of those that are done."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from farm.core.flow.cellstate import CellProgress, FlowDefect, State
from farm.core.flow.results import Results
from farm.core.flow.stimuli import FinishCell
from farm.core.plan import ArtifactId, Cell, Plan
from farm.core.result import CellResult

log = logging.getLogger(__name__)


class Cells:
    """Every planned cell that is to run; the only place where a state changes.

    Args:
        plan: What is to run.
        finished: Results that an earlier epoch of the run recorded, by cell.
    """

    def __init__(self, plan: Plan, finished: Mapping[str, CellResult]) -> None:
        sets = {cell.devices: frozenset(cell.devices) for cell in plan.cells}
        self._all = {cell.cell_id: CellProgress(cell, sets[cell.devices]) for cell in plan.cells}
        #: One result a cell, skipped ones included.
        self.results = Results(finished)
        self._open: dict[ArtifactId, dict[str, CellProgress]] = {}
        for one in self._all.values():
            if one.cell.cell_id in self.results:
                one.state = State.DONE
            else:
                self._open.setdefault(one.cell.artifact, {})[one.cell.cell_id] = one
        self.open_count = sum(map(len, self._open.values()))
        #: Stimuli so far.
        self.stimulus = 0
        #: Cells by device, made when a device is gone for the first time.
        self._by_device: dict[str, list[CellProgress]] | None = None

    def __contains__(self, cell_id: object) -> bool:
        return cell_id in self._all

    def __getitem__(self, cell_id: str) -> CellProgress:
        return self._all[cell_id]

    def __iter__(self) -> Iterator[CellProgress]:
        return iter(self._all.values())

    def add(self, cell: Cell) -> CellProgress:
        """Open a cell that the plan doesn't have: a second sitting of one that it has."""
        one = CellProgress(cell, frozenset(cell.devices))
        self._all[cell.cell_id] = one
        self._open.setdefault(cell.artifact, {})[cell.cell_id] = one
        self.open_count += 1
        self._by_device = None
        return one

    @property
    def open(self) -> list[CellProgress]:
        """Cells without a result, in the plan's order within an artifact."""
        return [one for group in self._open.values() for one in group.values()]

    def open_of(self, artifact: ArtifactId) -> list[CellProgress]:
        """Cells of an artifact without a result, in the plan's order."""
        return list(self._open.get(artifact, {}).values())

    def waiting_for(self, device: str) -> list[CellProgress]:
        """Cells that wait for their artifact, and may run on a device."""
        if self._by_device is None:
            self._by_device = {}
            for one in self.open:
                for name in one.cell.devices:
                    self._by_device.setdefault(name, []).append(one)
        waiting = State.WAITING_ARTIFACT
        return [one for one in self._by_device.get(device, ()) if one.state is waiting]

    def move(self, one: CellProgress, target: State, why: str) -> None:
        """Change the state of a cell, by the table; see `CellProgress.move`."""
        one.move(target, why, self.stimulus)
        log.debug("%s: %s: %s", one.cell.cell_id, target.value, why)

    def finish(self, one: CellProgress, result: CellResult) -> FinishCell:
        """End a cell with its one result."""
        self.move(one, State.DONE, f"{result.outcome}: {result.reason or ', '.join(result.flags)}")
        artifact = one.cell.artifact
        del self._open[artifact][one.cell.cell_id]
        if not self._open[artifact]:
            del self._open[artifact]
        self.open_count -= 1
        one.run, one.attempts = None, ()  # what of them is evidence is in the result
        return self.record(result)

    def record(self, result: CellResult) -> FinishCell:
        """Keep a result.

        Raises:
            FlowDefect: The cell has one.
        """
        if result.cell_id in self.results:
            raise FlowDefect(f"cell {result.cell_id} got a second result: {result.outcome}")
        self.results[result.cell_id] = result
        return FinishCell(result)
