"""Logits matrices as memory maps, and which rows of them belong together.

Knows no metric and no stage; the caller says where the file lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from farm.core.artifact import LogitsRef
from farm.core.errors import BadOutput, StoreError
from farm.judge.compact import CompactLogits, open_compact

Matrix: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Logits:
    """Rows of logits and the token position that each of them holds."""

    #: float32 [rows, vocabulary], usually a memory map; of a slow link maybe in part.
    values: Matrix | CompactLogits
    #: Index of the token after which row i was read; ascending.
    positions: tuple[int, ...]

    @property
    def consistent(self) -> bool:
        """True when there is one row for each position."""
        return self.values.ndim == 2 and self.values.shape[0] == len(self.positions)


def open_logits(path: Path, ref: LogitsRef) -> Matrix:
    """Map raw little-endian float32 logits of shape [ref.rows, ref.cols] without reading them.

    Raises:
        StoreError: The file can't be opened.
        BadOutput: Its size isn't that of the shape, or it is in the compact form.
    """
    expected = ref.rows * ref.cols * 4
    try:
        size = path.stat().st_size
        if size != expected or expected == 0:
            raise BadOutput(
                f"{ref.object.name}: {size} bytes of logits, "
                f"[{ref.rows}, {ref.cols}] float32 needs {expected}",
                raw=ref.object.name,
            )
        return np.memmap(path, dtype="<f4", mode="r", shape=(ref.rows, ref.cols))
    except OSError as error:
        raise StoreError(f"can't open the logits {path}: {error.strerror}") from error


def open_some(path: Path, ref: LogitsRef) -> Matrix | CompactLogits:
    """Map logits of either form; raises as `open_logits` and `open_compact`."""
    return open_compact(path, ref) if ref.compact else open_logits(path, ref)


def common_rows(first: Logits, second: Logits) -> tuple[list[int], list[int], list[int]]:
    """Find the positions that both hold.

    Returns:
        Row indices in `first`, row indices in `second`, and the positions themselves.
    """
    where = {position: row for row, position in enumerate(first.positions)}
    shared = [(where[p], row, p) for row, p in enumerate(second.positions) if p in where]
    return [a for a, _, _ in shared], [b for _, b, _ in shared], [p for _, _, p in shared]


def every_position(values: Matrix | CompactLogits) -> Logits:
    """Wrap a matrix that has a row for every position, as eager references do."""
    return Logits(values, tuple(range(values.shape[0])))


def rows_of(values: Matrix, rows: Sequence[int]) -> Matrix:
    """Copy some rows into a contiguous block; a run of neighbours is a view, not a copy."""
    first, last = rows[0], rows[-1]
    if list(rows) == list(range(first, last + 1)):
        return values[first : last + 1]
    return values[list(rows)]
