"""The results of a run: those that an earlier part of it recorded, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

from farm.core.result import CellResult


class Results(MutableMapping[str, CellResult]):
    """Results by cell, on top of those that are there already.

    Args:
        recorded: What is there; it may decode each result anew, and is only asked for what is
            wanted: a run of 100,000 cells goes on at once.
    """

    def __init__(self, recorded: Mapping[str, CellResult]) -> None:
        self._recorded = recorded
        self._new: dict[str, CellResult] = {}

    def __getitem__(self, cell_id: str) -> CellResult:
        found = self._new.get(cell_id)
        return self._recorded[cell_id] if found is None else found

    def __setitem__(self, cell_id: str, result: CellResult) -> None:
        self._new[cell_id] = result

    def __delitem__(self, cell_id: str) -> None:
        raise TypeError(f"a result is never taken back: {cell_id}")

    def __contains__(self, cell_id: object) -> bool:
        return cell_id in self._new or cell_id in self._recorded

    def __iter__(self) -> Iterator[str]:
        yield from self._new
        yield from (cell_id for cell_id in self._recorded if cell_id not in self._new)

    def __len__(self) -> int:
        return len(self._new) + sum(cell_id not in self._new for cell_id in self._recorded)
