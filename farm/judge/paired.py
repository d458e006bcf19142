"""The same positions of two sets of logits, one of which a slow link may have brought in part."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from farm.judge.compact import CompactLogits
from farm.judge.logits import Logits, Matrix, rows_of

_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RowPairs:
    """The same positions of both sides."""

    a: Matrix | _Vector
    b: Matrix | _Vector
    same: bool
    #: Rows that both sides have whole.
    whole: npt.NDArray[np.bool_]
    #: Rows whose most likely token is the same.
    same_top: npt.NDArray[np.bool_]
    #: The whole rows of the compact side as if they were none; None: neither side is compact.
    coarse: _Vector | None = None
    #: Whether side a is the compact one.
    flipped: bool = False


def row_pairs(first: Logits, second: Logits, rows_a: list[int], rows_b: list[int]) -> RowPairs:
    """Bring rows of both sides together; of two compact sides nothing could be said."""
    one, other = first.values, second.values
    if isinstance(one, CompactLogits):
        assert not isinstance(other, CompactLogits), "one side has to have whole rows"
        found = _compact_pair(rows_of(other, rows_b), one, rows_a)
        return replace(found, a=found.b, b=found.a, flipped=True)
    if isinstance(other, CompactLogits):
        return _compact_pair(rows_of(one, rows_a), other, rows_b)
    a, b = rows_of(one, rows_a), rows_of(other, rows_b)
    whole = np.ones(len(rows_a), dtype=bool)
    if _same_bits(a, b):
        return RowPairs(a, a, True, whole, whole)
    return RowPairs(a, b, False, whole, a.argmax(axis=1) == b.argmax(axis=1))


def _compact_pair(a: Matrix, compact: CompactLogits, rows: list[int]) -> RowPairs:
    whole = np.array([row in compact.whole for row in rows])
    wide = a.astype(np.float64)
    like = np.stack([compact.like(row, wide[i]) for i, row in enumerate(rows)])
    coarse = [compact.coarse(rows[i], wide[i]) for i in np.flatnonzero(whole)]
    return RowPairs(
        a=wide,
        b=like,
        same=False,  # who has the same bits has them in the store, and nothing was fetched
        whole=whole,
        same_top=a.argmax(axis=1) == [compact.top(row) for row in rows],
        coarse=np.array(coarse).reshape(-1, a.shape[1]),
    )


def _same_bits(a: Matrix, b: Matrix) -> bool:
    return np.array_equal(
        np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32)
    )
