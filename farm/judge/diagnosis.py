"""Which operator of an observed program is off, each computed by PyTorch on the same inputs.

Two looks at each: a typical row, the worst quarter of the text's, and the worst column over all
rows. An 8-bit activation that is rounded the other way spoils a row here and there and all columns
a little: the first look is blind to it. A single weight spoils one column of all rows: the first
look is blind to that, the second is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from farm.core.artifact import ExportResult
from farm.core.diagnosis import ARTIFACT, DEVICE, HOST, Blame, OperatorError, Tap
from farm.judge.logits import Matrix
from farm.judge.weights import weight_fault

#: Relative errors of a typical row and of the worst column that another order of sums may make;
#: and where activations are rounded to 8 bits on the way.
_EXACT = (1e-4, 1e-3)
_ROUNDED = (2e-3, 2e-2)
#: Pieces of the text that each have a typical row: a fault may begin at some position.
_PIECES = 4


def operator_errors(
    stage: str, taps: Sequence[Tap], found: Matrix, expected: Matrix
) -> list[OperatorError]:
    """Compare what an observed program gave with what PyTorch makes of the same inputs.

    Args:
        stage: Who gave it.
        taps: Columns of both.
        found: What the program gave, a row a position.
        expected: Each value computed alone.
    """
    starts = np.cumsum([0, *(one.width for one in taps)])
    if found.shape != expected.shape or found.shape[1] != starts[-1]:
        shape = f"{found.shape} numbers, {expected.shape} expected"
        return [OperatorError(stage, None, "the whole", None, None, None, True, shape)]
    rows = []
    for number, one in enumerate(taps):
        columns = slice(starts[number], starts[number + 1])
        theirs, ours = found[:, columns].astype("<f8"), expected[:, columns].astype("<f8")
        size = ours
        if one.adds_to is not None:
            base = starts[one.adds_to]
            size = ours - found[:, base : base + one.width]
        rows.append(_compared(stage, one, theirs - ours, size))
    return rows


def tolerance(one: Tap) -> tuple[float, float]:
    """Largest relative errors of a typical row and of the worst column."""
    return _ROUNDED if one.rounded else _EXACT


def _compared(
    stage: str, one: Tap, difference: npt.NDArray[np.float64], size: npt.NDArray[np.float64]
) -> OperatorError:
    if not np.isfinite(difference).all():
        bad = int((~np.isfinite(difference)).any(axis=1).sum())
        reason = f"no finite number in {bad} of {len(difference)} rows"
        return OperatorError(stage, one.layer, one.operator, None, None, None, True, reason)
    rows = np.linalg.norm(difference, axis=1) / _some(np.linalg.norm(size, axis=1))
    row = max(float(np.median(piece)) for piece in np.array_split(rows, _PIECES) if len(piece))
    whole = _some(np.sqrt((size * size).mean()))
    column = float((np.sqrt((difference * difference).mean(axis=0)) / whole).max())
    most_row, most_column = tolerance(one)
    error = max(row / most_row, column / most_column)
    return OperatorError(stage, one.layer, one.operator, error, row, column, error > 1.0)


def _some(values: npt.NDArray[np.float64] | np.float64) -> npt.NDArray[np.float64]:
    """Divisors, none of them 0."""
    return np.maximum(values, 1e-30)


def weight_errors(export: ExportResult) -> list[OperatorError]:
    """Tensors of the written artifact that aren't what their source asks for."""
    return [
        OperatorError(ARTIFACT, *_place(check.name), None, None, None, True, fault)
        for check in export.weights
        if (fault := weight_fault(check))
    ]


def _place(tensor: str) -> tuple[int | None, str]:
    """Layer and operator that read a tensor: `layers.1.feed_forward.w2.weight`."""
    name = tensor.removesuffix(".weight")
    if not name.startswith("layers."):
        return None, "rope" if name.startswith("rope.") else name
    _, layer, operator = name.split(".", 2)
    return int(layer), operator


def blamed(
    weights: Sequence[OperatorError],
    pieces: Sequence[OperatorError],
    operators: Sequence[OperatorError],
) -> Blame | None:
    """The earliest stage that parts, and in it the first place.

    Args:
        weights: Faults of the written artifact.
        pieces: All stages' pieces of the whole model, each stage's in order.
        operators: Those of the layer that was looked into, where one was.
    """
    if weights:
        one = min(weights, key=lambda row: math.inf if row.layer is None else row.layer)
        return Blame(ARTIFACT, one.layer, one.operator, one.reason)
    for stage in (HOST, DEVICE):
        piece = first_parting(row for row in pieces if row.stage == stage)
        if piece is None:
            continue
        inside = first_parting(row for row in operators if row.stage == stage)
        one = inside or piece
        reason = told(one)
        if inside is None and operators:
            reason += "; no operator of that layer parts when its values are brought out"
        return Blame(stage, one.layer, one.operator, reason)
    return None


def first_parting(rows: Iterable[OperatorError]) -> OperatorError | None:
    """The first that is beyond its tolerance, in the order of computing.

    The head stands first among the pieces, as its logits do, and is computed last.
    """
    parting = [row for row in rows if row.parts]
    inner = [row for row in parting if row.layer is not None or row.operator == "tok_embeddings"]
    return next(iter(inner or parting), None)


def told(row: OperatorError) -> str:
    """How far one is off, in words."""
    if row.error is None:
        return row.reason
    assert row.row_error is not None, "an error has its parts"
    assert row.column_error is not None, "an error has its parts"
    return (
        f"{row.error:.3g} x what rounding may do: a typical row is off by {row.row_error:.2g},"
        f" the worst column by {row.column_error:.2g}"
    )
