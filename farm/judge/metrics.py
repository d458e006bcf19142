"""How far two sets of logits lie apart, row by row, in memory that stays flat.

Knows numbers only: what is near enough is decided in farm.judge.rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from farm.judge.logits import Logits, Matrix, common_rows, rows_of

#: Elements of one block in float64: two blocks and their exponentials stay under 32 MiB.
_BLOCK_ELEMENTS = 1 << 19
#: Positions of a block over which a perplexity's error is taken, and how many blocks say something.
_BLOCK_POSITIONS, _LEAST_BLOCKS = 16, 8
#: exp() of more overflows; a model this wrong gets a perplexity of 1e304, which JSON can hold.
_MAX_NLL = 700.0

_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The first NaN or infinity: which side holds it (`from` or `to`) and at which position."""

    side: str
    position: int


@dataclass(frozen=True, slots=True)
class PerplexityChange:
    """ln(perplexity_to / perplexity_from), paired by position."""

    log_ratio: float
    #: Standard error of it over blocks of positions; None below two positions.
    standard_error: float | None
    #: Positions that have a next token.
    positions: int


@dataclass(frozen=True, slots=True)
class Relation:
    """How the difference `to - from` hangs on `from`, all logits of all rows at once.

    Rounding has no direction: slope and R2 are near 0 however large the noise. A wrong scale, mask
    or position moves logits in a direction that they themselves show.
    """

    #: Of the regression of the difference on `from`, both without the mean of their row.
    slope: float
    #: Share of the difference that it explains, 0..1.
    r_squared: float
    #: Root mean square of the difference in the column where it is largest, over the median column.
    column_ratio: float
    #: That column: a token id.
    column: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of logits compared on the positions that both hold.

    Every number is None when `non_finite` is set, or where no row can give it.
    """

    rows: int
    bit_equal: bool
    non_finite: NonFinite | None
    cosine_min: float | None = None
    #: KL(from || to) in nats.
    kl_mean: float | None = None
    kl_max: float | None = None
    top1_agreement: float | None = None
    max_abs_error: float | None = None
    #: Position of the first row whose most likely token differs.
    first_divergence: int | None = None
    perplexity_from: float | None = None
    perplexity_to: float | None = None
    perplexity_change: PerplexityChange | None = None
    #: None where nothing differs.
    relation: Relation | None = None


@dataclass(frozen=True, slots=True)
class _Block:
    """Figures of some rows; shapes [rows] but for the last two."""

    kl: _Vector
    cosine: _Vector
    error: _Vector
    same_top: npt.NDArray[np.bool_]
    #: Negative log-likelihood of the next token; NaN where there is none.
    nll_from: _Vector
    nll_to: _Vector
    #: Sums over all logits without their row's mean: from x from, from x difference; None where
    #: both sides are the same bits.
    products: tuple[float, float] | None
    #: Sum over the rows of the squared difference, [vocabulary].
    columns: _Vector | None


def compare(first: Logits, second: Logits, tokens: Sequence[int]) -> Comparison:
    """Compare `second` with `first`, on the rows whose positions both hold.

    Args:
        first: The side that is trusted more (`from`).
        second: The side that is judged (`to`); same vocabulary.
        tokens: The teacher-forced token ids; row at position p predicts tokens[p + 1], and a
            row without a next token counts for everything but perplexity.

    Raises:
        ValueError: The vocabularies differ, a matrix has not one row for each position, or
            no position is common. Check before: it is the caller's mistake.
    """
    if not (first.consistent and second.consistent):
        raise ValueError("logits need one row for each position")
    if first.values.shape[1] != second.values.shape[1]:
        raise ValueError(f"vocabularies differ: {first.values.shape} and {second.values.shape}")
    rows_a, rows_b, positions = common_rows(first, second)
    if not positions:
        raise ValueError("no common position")
    targets = np.array([tokens[p + 1] if p + 1 < len(tokens) else -1 for p in positions])
    bit_equal, blocks = True, []
    for part in _parts(len(positions), first.values.shape[1]):
        a = rows_of(first.values, rows_a[part])
        b = rows_of(second.values, rows_b[part])
        same = _same_bits(a, b)
        bit_equal &= same
        bad = _first_non_finite(a, b, positions[part])
        if bad is not None:
            # Wrong whatever follows; "bit equal" would read as a pass.
            return Comparison(len(positions), False, bad)
        blocks.append(_compare_block(a, a if same else b, targets[part]))
    return _combine(blocks, positions, bit_equal=bit_equal)


def _parts(rows: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, _BLOCK_ELEMENTS // max(1, vocabulary))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


def _same_bits(a: Matrix, b: Matrix) -> bool:
    return np.array_equal(
        np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32)
    )


def first_non_finite(logits: Logits) -> int | None:
    """Position of the first row that holds a NaN or infinity; None where none does."""
    for part in _parts(*logits.values.shape):
        row = _non_finite_row(logits.values[part])
        if row is not None:
            return int(logits.positions[part][row])
    return None


def _first_non_finite(a: Matrix, b: Matrix, positions: Sequence[int]) -> NonFinite | None:
    for side, values in (("from", a), ("to", b)):
        row = _non_finite_row(values)
        if row is not None:
            return NonFinite(side, positions[row])
    return None


def _non_finite_row(values: Matrix) -> int | None:
    finite = np.isfinite(values).all(axis=1)
    return None if finite.all() else int(np.argmin(finite))


def _softmax(values: _Vector) -> tuple[_Vector, _Vector]:
    """Probabilities [rows, vocabulary] and log of the sum of exponentials [rows]."""
    peak = values.max(axis=1)
    exponentials = np.exp(values - peak[:, None])
    total = exponentials.sum(axis=1)
    exponentials /= total[:, None]
    return exponentials, peak + np.log(total)


def _compare_block(a32: Matrix, b32: Matrix, targets: npt.NDArray[np.int64]) -> _Block:
    a = a32.astype(np.float64)
    probabilities, lse_a = _softmax(a)
    known = targets >= 0
    index = np.where(known, targets, 0)[:, None]
    nll_a = np.where(known, lse_a - np.take_along_axis(a, index, 1)[:, 0], np.nan)
    rows = len(targets)
    if b32 is a32:
        zero = np.zeros(rows)
        same = np.ones(rows, dtype=bool)
        return _Block(zero, np.ones(rows), zero, same, nll_a, nll_a, None, None)
    b = b32.astype(np.float64)
    _, lse_b = _softmax(b)
    nll_b = np.where(known, lse_b - np.take_along_axis(b, index, 1)[:, 0], np.nan)
    difference = a - b
    # sum p (log p - log q) with log p = a - lse_a; rounding can leave -1e-16 where it is 0.
    kl = np.maximum(0.0, np.einsum("ij,ij->i", probabilities, difference) - lse_a + lse_b)
    cosine = _cosine(a, b)
    error = np.abs(difference).max(axis=1)
    # Logits have no zero: what a whole row has in common changes no probability.
    moved = difference.mean(axis=1, keepdims=True) - difference
    centred = a - a.mean(axis=1, keepdims=True)
    return _Block(
        kl=kl,
        cosine=cosine,
        error=error,
        same_top=a32.argmax(axis=1) == b32.argmax(axis=1),
        nll_from=nll_a,
        nll_to=nll_b,
        products=(float(np.vdot(centred, centred)), float(np.vdot(centred, moved))),
        columns=np.einsum("ij,ij->j", moved, moved),
    )


def _cosine(a: _Vector, b: _Vector) -> _Vector:
    """Cosine of each row pair; two zero rows are alike, a zero and another row are not."""
    square_a, square_b = np.einsum("ij,ij->i", a, a), np.einsum("ij,ij->i", b, b)
    norms = np.sqrt(square_a * square_b)
    dots = np.einsum("ij,ij->i", a, b)
    both_zero = (square_a == 0) & (square_b == 0)
    return np.where(both_zero, 1.0, np.clip(dots / np.where(norms > 0, norms, 1.0), -1.0, 1.0))


def _combine(blocks: Sequence[_Block], positions: Sequence[int], *, bit_equal: bool) -> Comparison:
    kl = np.concatenate([block.kl for block in blocks])
    same_top = np.concatenate([block.same_top for block in blocks])
    nll_from = np.concatenate([block.nll_from for block in blocks])
    nll_to = np.concatenate([block.nll_to for block in blocks])
    known = ~np.isnan(nll_from)
    change = _perplexity_change(nll_from[known], nll_to[known])
    return Comparison(
        rows=len(positions),
        bit_equal=bit_equal,
        non_finite=None,
        cosine_min=float(min(block.cosine.min() for block in blocks)),
        kl_mean=float(kl.mean()),
        kl_max=float(kl.max()),
        top1_agreement=float(same_top.mean()),
        max_abs_error=float(max(block.error.max() for block in blocks)),
        first_divergence=None if same_top.all() else positions[int(np.argmin(same_top))],
        perplexity_from=None if change is None else _perplexity(nll_from[known]),
        perplexity_to=None if change is None else _perplexity(nll_to[known]),
        perplexity_change=change,
        relation=_relation(blocks),
    )


def _relation(blocks: Sequence[_Block]) -> Relation | None:
    columns = [block.columns for block in blocks if block.columns is not None]
    products = [block.products for block in blocks if block.products is not None]
    if not columns:
        return None
    by_column = np.sum(columns, axis=0)
    squares, mixed = (sum(pair[i] for pair in products) for i in (0, 1))
    total, middle = float(by_column.sum()), float(np.median(by_column))
    if squares <= 0 or total <= 0 or middle <= 0:
        return None
    worst = int(by_column.argmax())
    return Relation(
        slope=mixed / squares,
        r_squared=min(1.0, mixed * mixed / (squares * total)),
        column_ratio=math.sqrt(float(by_column[worst]) / middle),
        column=worst,
    )


def _perplexity(nll: _Vector) -> float:
    return math.exp(min(float(nll.mean()), _MAX_NLL))


def _standard_error(values: _Vector) -> float | None:
    """Standard error of the mean of a row of positions; None of a single one.

    What moves one position moves its neighbours: the error over blocks of them counts where it is
    the larger one.
    """
    if values.size < 2:
        return None
    single = float(values.std(ddof=1) / math.sqrt(values.size))
    blocks = values.size // _BLOCK_POSITIONS
    if blocks < _LEAST_BLOCKS:
        return single
    means = np.array([part.mean() for part in np.array_split(values, blocks)])
    return max(single, float(means.std(ddof=1) / math.sqrt(blocks)))


def _perplexity_change(nll_from: _Vector, nll_to: _Vector) -> PerplexityChange | None:
    if nll_from.size == 0:
        return None
    difference = nll_to - nll_from
    error = _standard_error(difference)
    log_ratio = max(-_MAX_NLL, min(float(difference.mean()), _MAX_NLL))
    return PerplexityChange(log_ratio, error, int(difference.size))
