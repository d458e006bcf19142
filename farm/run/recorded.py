"""Results that a journal holds, decoded one by one when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from farm.core.result import CellResult


class Recorded(Mapping[str, CellResult]):
    """Results by cell id; their outcomes are known without decoding them.

    Args:
        outcomes: Outcome by cell id.
        read: Reads one, as long as the journal is open.
    """

    def __init__(self, outcomes: Mapping[str, str], read: Callable[[str], CellResult]) -> None:
        self._outcomes, self._read = outcomes, read

    def with_outcome(self, *outcomes: str) -> Recorded:
        """Return those that ended in one of these ways."""
        kept = {i: outcome for i, outcome in self._outcomes.items() if outcome in outcomes}
        return Recorded(kept, self._read)

    def __getitem__(self, cell_id: str) -> CellResult:
        if cell_id not in self._outcomes:
            raise KeyError(cell_id)
        return self._read(cell_id)

    def __contains__(self, cell_id: object) -> bool:
        return cell_id in self._outcomes

    def __iter__(self) -> Iterator[str]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)
