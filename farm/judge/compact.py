"""Logits in the form for slow links: some rows whole, of the others what matters most.

Of a row that isn't whole the largest values are exact, and of each bucket of neighbouring ids the
sum of the other exponentials. A KL divergence over kept ids and buckets is a lower bound of the one
over all ids (the log-sum inequality); how much it hides is seen on the whole rows. Written by
`farm-helper compact`; runners/native/PROTOCOL.md has the layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from farm.core.artifact import LogitsRef
from farm.core.errors import BadOutput, StoreError

_MAGIC = 0x314C4346
_HEADER = np.dtype("<u4")

_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CompactLogits:
    """Rows of logits, most of them in part."""

    #: Rows and vocabulary.
    shape: tuple[int, int]
    #: Index of each whole row, ascending, and the rows: float32 [whole, vocabulary].
    whole: tuple[int, ...]
    values: npt.NDArray[np.float32]
    #: Of each other row, in order: logarithms of sums, float64 [others, buckets].
    sums: npt.NDArray[np.float64]
    #: Kept ids, ascending, int [others, kept], and their logits, float32.
    ids: npt.NDArray[np.uint32]
    logits: npt.NDArray[np.float32]

    @property
    def ndim(self) -> int:
        """As of an array."""
        return 2

    def row(self, index: int) -> npt.NDArray[np.float32] | None:
        """A whole row; None where it isn't."""
        return self.values[self.whole.index(index)] if index in self.whole else None

    def top(self, index: int) -> int:
        """The most likely token of a row; of equal ones the smaller id."""
        row = self.row(index)
        if row is not None:
            return int(row.argmax())
        other = self._other(index)
        return int(self.ids[other][self.logits[other].argmax()])

    def like(self, index: int, reference: _Vector) -> _Vector:
        """The row that is nearest to `reference` and has these kept values and sums, [vocabulary].

        KL divergences between it and `reference`, either way, are those over kept ids and buckets.
        """
        row = self.row(index)
        if row is not None:
            return row.astype(np.float64)
        other = self._other(index)
        return _spread(reference, self.ids[other], self.logits[other], self.sums[other])

    def coarse(self, index: int, reference: _Vector) -> _Vector:
        """The same of a whole row as if it weren't one: what the compact form makes of it."""
        row = self.row(index)
        assert row is not None, index
        kept = np.sort(np.argsort(-row, kind="stable")[: self.ids.shape[1]])
        sums = _sums(row.astype(np.float64), kept, self.sums.shape[1])
        return _spread(reference, kept, row[kept], sums)

    def _other(self, index: int) -> int:
        return index - int(np.searchsorted(self.whole, index))


def open_compact(path: Path, ref: LogitsRef) -> CompactLogits:
    """Map logits in the compact form.

    Raises:
        StoreError: The file can't be opened.
        BadOutput: It isn't of that form, or of another shape.
    """
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise StoreError(f"can't open the logits {path}: {error}") from error
    header = raw[:24].view(_HEADER) if raw.size >= 24 else np.zeros(6, _HEADER)
    magic, rows, cols, whole, top, buckets = (int(word) for word in header)
    first = 24 + whole * cols * 4
    if (
        (magic, rows, cols) != (_MAGIC, ref.rows, ref.cols)
        or not (2 <= whole < rows and top and buckets)
        or raw.size != first + (rows - whole) * 8 * (top + buckets)
    ):
        raise _bad(ref, f"{raw.size} bytes with the header {[hex(word) for word in header]}")
    others = raw[first:].view(
        [("sums", "<f8", (buckets,)), ("ids", "<u4", (top,)), ("logits", "<f4", (top,))]
    )
    if int(others["ids"].max()) >= cols:
        raise _bad(ref, f"an id beyond the vocabulary of {cols}")
    return CompactLogits(
        shape=(rows, cols),
        whole=tuple(k * (rows - 1) // (whole - 1) for k in range(whole)),
        values=raw[24:first].view("<f4").reshape(whole, cols),
        sums=others["sums"],
        ids=others["ids"],
        logits=others["logits"],
    )


def _bad(ref: LogitsRef, what: str) -> BadOutput:
    return BadOutput(
        f"{ref.object.name}: no compact logits of [{ref.rows}, {ref.cols}]: {what}",
        raw=ref.object.name,
    )


def _sums(row: _Vector, kept: npt.NDArray[np.integer], buckets: int) -> _Vector:
    """Logarithm of the sum of the exponentials of each bucket's ids that aren't kept."""
    rest = row.copy()
    rest[kept] = -np.inf
    starts, owner = _buckets(row.size, buckets)
    peaks = np.maximum.reduceat(rest, starts)
    shift = np.where(np.isfinite(peaks), peaks, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(shift + np.log(np.add.reduceat(np.exp(rest - shift[owner]), starts)))


def _spread(
    reference: _Vector,
    kept: npt.NDArray[np.integer],
    logits: npt.NDArray[np.float32],
    sums: _Vector,
) -> _Vector:
    """Shift the reference's logits of each bucket so that their sum is the given one."""
    _, owner = _buckets(reference.size, sums.size)
    theirs = _sums(reference, kept, sums.size)
    # A bucket of kept ids only has no sum, here and there.
    shift = np.where(np.isfinite(theirs), sums - np.where(np.isfinite(theirs), theirs, 0.0), 0.0)
    found = reference + shift[owner]
    found[kept] = logits
    return found


@lru_cache(maxsize=4)
def _buckets(cols: int, buckets: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First id of each bucket, and the bucket of each id; the same for every row."""
    owner = np.arange(cols, dtype=np.int64) * buckets // cols
    return np.searchsorted(owner, np.arange(buckets)), owner
