"""How cells end that are not judged: errored or skipped, with what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from farm.core.device import Device
from farm.core.errors import FarmError
from farm.core.flow import outcomes
from farm.core.flow.cells import Cells
from farm.core.flow.cellstate import CellProgress, State
from farm.core.flow.chain import ArtifactChain
from farm.core.flow.placement import Placement
from farm.core.flow.stimuli import CancelJob, FinishCell, Instruction
from farm.core.plan import ArtifactId
from farm.core.result import CellResult


class Ends:
    """Ends cells of one run."""

    def __init__(
        self, cells: Cells, placement: Placement, chains: Mapping[ArtifactId, ArtifactChain]
    ) -> None:
        self._cells, self._placement, self._chains = cells, placement, chains

    def device(self, one: CellProgress) -> Device:
        """Return the device of a cell as it is now; of a pool's cell, one that stands for all."""
        roster = self._placement.roster
        return roster[one.device] if one.device else roster.of(one.cell)

    def errored(self, one: CellProgress, error: FarmError, flag: str) -> list[Instruction]:
        """End a cell with an error, and its job with it."""
        return self._end(one, outcomes.errored, error, flag)

    def skipped(self, one: CellProgress, flag: str, reason: str) -> list[Instruction]:
        """End a cell that did not run to its end, and its job with it."""
        return self._end(one, outcomes.skipped, flag, reason)

    def _end(
        self, one: CellProgress, make: Callable[..., CellResult], *why: object
    ) -> list[Instruction]:
        export, attempts = self._chains[one.cell.artifact].export, one.attempts
        result = make(one.cell, self.device(one), *why, attempts=attempts, export=export)
        self._placement.matcher.remove(one.cell.cell_id)
        job = self._job_of(one)
        return [self._cells.finish(one, result), *job]

    def _job_of(self, one: CellProgress) -> list[Instruction]:
        """Tell its device to stop, where a job of this cell still runs."""
        roster = self._placement.roster
        attempt = roster.at_work.get(one.device or "")
        if one.state is not State.SUBMITTED or attempt is None:
            return []
        if attempt.job_id != one.cell.cell_id:
            return []
        return [CancelJob(attempt, roster[one.device or ""].entry.site)]


def finished(instructions: list[Instruction]) -> list[Instruction]:
    """Leave out the ends of single jobs: all of them are told to end."""
    return [item for item in instructions if isinstance(item, FinishCell)]
