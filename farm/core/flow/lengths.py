"""How long the work of a run takes, by what earlier runs took; and what therefore goes first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from farm.core.plan import ArtifactId, Cell
from farm.core.rules.order import flow_shop_order

#: How an earlier run names a job: `job:CELL@DEVICE`.
_JOB = "job:"
#: How it names the time before its first task, and after its last result until it had its reports.
OPENING, CLOSING = "run:opening", "run:closing"


class Lengths:
    """Seconds of jobs and exports.

    Args:
        past: Seconds of earlier work, by task id and by `job:CELL@DEVICE`.
        assumed_s: What a job may measure at most: taken where nothing like it ran before.
    """

    def __init__(self, past: Mapping[str, float], assumed_s: float) -> None:
        self._past, self._assumed_s = past, assumed_s
        #: Longest of a cell on any device, and of any cell of an artifact.
        self._by_cell: dict[str, float] = {}
        self._by_artifact: dict[str, float] = {}
        for name, seconds in past.items():
            if not name.startswith(_JOB):
                continue
            cell_id = name[len(_JOB) :].rpartition("@")[0]
            for known, key in ((self._by_cell, cell_id), (self._by_artifact, _artifact(cell_id))):
                known[key] = max(seconds, known.get(key, 0.0))

    def of(self, cell: Cell) -> float:
        """How long a cell takes on a device: its own time, else that of its artifact."""
        found = self._by_cell.get(cell.cell_id)
        if found is None:
            found = self._by_artifact.get(_artifact(cell.cell_id), self._assumed_s)
        return found

    def export_order(self, cells: Iterable[Cell]) -> list[ArtifactId]:
        """Return the artifacts in the order in which devices wait least for them."""
        work: dict[ArtifactId, float] = {}
        places: set[str] = set()
        for cell in cells:
            work[cell.artifact] = work.get(cell.artifact, 0.0) + self.of(cell)
            places.update(cell.devices)
        export_s = {target: self._past.get(f"export:{target}", 0.0) for target in work}
        # What follows an export is spread over all devices.
        after = {target: seconds / max(1, len(places)) for target, seconds in work.items()}
        return flow_shop_order({target: (export_s[target], after[target]) for target in work})


def _artifact(cell_id: str) -> str:
    return cell_id.partition(":")[0]
