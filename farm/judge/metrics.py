"""How far two sets of logits lie apart, row by row, in memory that stays flat.

Knows numbers only: what is near enough is decided in farm.judge.rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from farm.judge.compact import CompactLogits
from farm.judge.logits import Logits, Matrix, common_rows
from farm.judge.paired import RowPairs, row_pairs

#: Elements of one block in float64: two blocks and their exponentials stay under 32 MiB.
_BLOCK_ELEMENTS = 1 << 19
#: Positions of a block over which a perplexity's error is taken, and how many blocks say something.
_BLOCK_POSITIONS, _LEAST_BLOCKS = 16, 8
#: exp() of more overflows; a model this wrong gets a perplexity of 1e304, which JSON can hold.
_MAX_NLL = 700.0
#: Most that the KL of a compact form is corrected by, and a KL, nats, that is rounding of our own.
_MOST_SCALE, _NOTHING = 1.25, 1e-12

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
class CompactCheck:
    """What the compact form of one side hides, seen on the rows that are whole."""

    #: Rows that are whole: cosine, largest error and relation are theirs alone.
    whole: int
    #: Mean KL of these rows, and what their compact form would say.
    kl_whole: float
    kl_coarse: float

    @property
    def scale(self) -> float:
        """What KL divergences of rows in the compact form are multiplied by."""
        share = self.kl_coarse / self.kl_whole if self.kl_whole > 0 else 1.0
        return 1 / min(1.0, max(share, 1 / _MOST_SCALE))

    @property
    def tells(self) -> bool:
        """Whether the compact form shows nearly all that there is to see."""
        return self.kl_whole <= _NOTHING or self.kl_coarse * _MOST_SCALE >= self.kl_whole


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
    #: None where all rows are whole.
    compact: CompactCheck | None = None


@dataclass(frozen=True, slots=True)
class _Block:
    """Figures of some rows; shapes [rows] but for those of whole rows only and the last two."""

    kl: _Vector
    #: Rows that both sides have whole.
    whole: npt.NDArray[np.bool_]
    #: What the compact form of whole rows says of them; None where all rows are whole.
    kl_coarse: _Vector | None
    #: Of whole rows, as `error`.
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
        pair = row_pairs(first, second, rows_a[part], rows_b[part])
        bit_equal &= pair.same
        bad = _first_non_finite(pair.a, pair.b, positions[part])
        if bad is not None:
            # Wrong whatever follows; "bit equal" would read as a pass.
            return Comparison(len(positions), False, bad)
        blocks.append(_compare_block(pair, targets[part]))
    return _combine(blocks, positions, bit_equal=bit_equal)


def _parts(rows: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, _BLOCK_ELEMENTS // max(1, vocabulary))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


def first_non_finite(logits: Logits) -> int | None:
    """Position of the first row that holds a NaN or infinity; None where none does."""
    if isinstance(logits.values, CompactLogits):
        return None  # the device makes no such form of them
    for part in _parts(*logits.values.shape):
        row = _non_finite_row(logits.values[part])
        if row is not None:
            return int(logits.positions[part][row])
    return None


def _first_non_finite(
    a: Matrix | _Vector, b: Matrix | _Vector, positions: Sequence[int]
) -> NonFinite | None:
    for side, values in (("from", a), ("to", b)):
        row = _non_finite_row(values)
        if row is not None:
            return NonFinite(side, positions[row])
    return None


def _non_finite_row(values: Matrix | _Vector) -> int | None:
    finite = np.isfinite(values).all(axis=1)
    return None if finite.all() else int(np.argmin(finite))


def _softmax(values: _Vector) -> tuple[_Vector, _Vector]:
    """Probabilities [rows, vocabulary] and log of the sum of exponentials [rows]."""
    peak = values.max(axis=1)
    exponentials = np.exp(values - peak[:, None])
    total = exponentials.sum(axis=1)
    exponentials /= total[:, None]
    return exponentials, peak + np.log(total)


def _compare_block(pair: RowPairs, targets: npt.NDArray[np.int64]) -> _Block:
    a = pair.a.astype(np.float64)
    probabilities, lse_a = _softmax(a)
    known = targets >= 0
    index = np.where(known, targets, 0)[:, None]
    nll_a = np.where(known, lse_a - np.take_along_axis(a, index, 1)[:, 0], np.nan)
    rows = len(targets)
    if pair.same:
        zero = np.zeros(rows)
        same = np.ones(rows, dtype=bool)
        return _Block(zero, same, None, np.ones(rows), zero, same, nll_a, nll_a, None, None)
    b = pair.b.astype(np.float64)
    _, lse_b = _softmax(b)
    nll_b = np.where(known, lse_b - np.take_along_axis(b, index, 1)[:, 0], np.nan)
    kl = _kl(a, b, probabilities, lse_a, lse_b)
    coarse = None
    if pair.coarse is not None:
        a, b = a[pair.whole], b[pair.whole]
        from_, to = (pair.coarse, b) if pair.flipped else (a, pair.coarse)
        coarse = _kl(from_, to, *_softmax(from_), _softmax(to)[1])
    difference = a - b
    # Logits have no zero: what a whole row has in common changes no probability.
    moved = difference.mean(axis=1, keepdims=True) - difference
    centred = a - a.mean(axis=1, keepdims=True)
    return _Block(
        kl=kl,
        whole=pair.whole,
        kl_coarse=coarse,
        cosine=_cosine(a, b),
        error=np.abs(difference).max(axis=1),
        same_top=pair.same_top,
        nll_from=nll_a,
        nll_to=nll_b,
        products=(float(np.vdot(centred, centred)), float(np.vdot(centred, moved))),
        columns=np.einsum("ij,ij->j", moved, moved),
    )


def _kl(a: _Vector, b: _Vector, probabilities: _Vector, lse_a: _Vector, lse_b: _Vector) -> _Vector:
    """KL(a || b) of each row pair, in nats; `probabilities` are those of a."""
    # sum p (log p - log q) with log p = a - lse_a; rounding can leave -1e-16 where it is 0.
    sums: _Vector = np.einsum("ij,ij->i", probabilities, a - b)
    return np.maximum(0.0, sums - lse_a + lse_b)


def _cosine(a: _Vector, b: _Vector) -> _Vector:
    """Cosine of each row pair; two zero rows are alike, a zero and another row are not."""
    square_a, square_b = np.einsum("ij,ij->i", a, a), np.einsum("ij,ij->i", b, b)
    norms = np.sqrt(square_a * square_b)
    dots = np.einsum("ij,ij->i", a, b)
    both_zero = (square_a == 0) & (square_b == 0)
    return np.where(both_zero, 1.0, np.clip(dots / np.where(norms > 0, norms, 1.0), -1.0, 1.0))


def _combine(blocks: Sequence[_Block], positions: Sequence[int], *, bit_equal: bool) -> Comparison:
    compact = _compact_check(blocks)
    scale = 1.0 if compact is None else compact.scale
    kl = np.concatenate([np.where(block.whole, 1.0, scale) * block.kl for block in blocks])
    cosine = np.concatenate([block.cosine for block in blocks])
    error = np.concatenate([block.error for block in blocks])
    same_top = np.concatenate([block.same_top for block in blocks])
    nll_from = np.concatenate([block.nll_from for block in blocks])
    nll_to = np.concatenate([block.nll_to for block in blocks])
    known = ~np.isnan(nll_from)
    change = _perplexity_change(nll_from[known], nll_to[known])
    return Comparison(
        rows=len(positions),
        bit_equal=bit_equal,
        non_finite=None,
        cosine_min=float(cosine.min()) if cosine.size else None,
        kl_mean=float(kl.mean()),
        kl_max=float(kl.max()),
        top1_agreement=float(same_top.mean()),
        max_abs_error=float(error.max()) if error.size else None,
        first_divergence=None if same_top.all() else positions[int(np.argmin(same_top))],
        perplexity_from=None if change is None else _perplexity(nll_from[known]),
        perplexity_to=None if change is None else _perplexity(nll_to[known]),
        perplexity_change=change,
        relation=_relation(blocks),
        compact=compact,
    )


def _compact_check(blocks: Sequence[_Block]) -> CompactCheck | None:
    """None where all rows are whole."""
    seen = [
        (block.kl[block.whole], block.kl_coarse) for block in blocks if block.kl_coarse is not None
    ]
    if not seen:
        return None
    whole = np.concatenate([whole for whole, _ in seen])
    coarse = np.concatenate([coarse for _, coarse in seen])
    if not whole.size:
        return CompactCheck(0, 0.0, 0.0)
    return CompactCheck(int(whole.size), float(whole.mean()), float(coarse.mean()))


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
