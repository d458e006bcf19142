"""Which operator is off: rows, columns, numbers that are none, and who is blamed first."""

from __future__ import annotations

import numpy as np
import pytest

from farm.core.diagnosis import ARTIFACT, DEVICE, HOST, OperatorError, Tap
from farm.judge.diagnosis import blamed, operator_errors
from farm.judge.logits import Matrix

TAPS = (
    Tap(None, "tok_embeddings", 8),
    Tap(0, "attention.wq", 16, rounded=True),
    Tap(0, "attention", 16),
    Tap(0, "after attention", 8, rounded=True, adds_to=0),
)


def _expected() -> Matrix:
    made = np.random.default_rng(0).normal(size=(64, 48)).astype("<f4")
    made[:, 40:] = made[:, :8] + 0.01 * made[:, 40:]  # a layer adds little to its stream
    return made


def _parting(found: Matrix) -> list[str]:
    rows = operator_errors(HOST, TAPS, found, _expected())
    assert [row.operator for row in rows] == [one.operator for one in TAPS]
    return [row.operator for row in rows if row.parts]


def test_equal_numbers_and_another_order_of_sums_part_nowhere() -> None:
    assert _parting(_expected()) == []
    noise = np.random.default_rng(1).normal(size=(64, 48)).astype("<f4")
    assert _parting((_expected() * (1 + 1e-6 * noise)).astype("<f4")) == []


def test_activations_that_are_rounded_the_other_way_now_and_then_are_no_fault() -> None:
    found = _expected()
    found[::9, 8:24] *= 1.01
    assert _parting(found) == []


def test_a_factor_of_an_exact_operator_is_found_though_it_is_small() -> None:
    found = _expected()
    found[:, 24:40] *= 1.0005
    assert _parting(found) == ["attention"]


def test_a_fault_that_begins_in_the_last_quarter_is_found() -> None:
    found = _expected()
    found[50:, 24:40] *= 1.0008
    assert _parting(found) == ["attention"]


def test_one_weight_spoils_one_column_and_no_row_much() -> None:
    taps = (Tap(0, "feed_forward.w2", 400, rounded=True),)
    expected = np.random.default_rng(2).normal(size=(64, 400)).astype("<f4")
    found = expected.copy()
    found[:, 10] *= 1.03
    (row,) = operator_errors(HOST, taps, found, expected)
    assert row.row_error is not None
    assert row.row_error < 2e-3
    assert row.parts


def test_what_a_layer_adds_is_judged_without_what_it_adds_to() -> None:
    found = _expected()
    stream = found[:, :8]
    found[:, 40:] = stream + (found[:, 40:] - stream) * 1.02
    assert _parting(found) == ["after attention"], "a hundredth of a percent of the stream"


def test_nan_is_named_with_its_rows() -> None:
    found = _expected()
    found[3, 12] = np.nan
    (row,) = (one for one in operator_errors(HOST, TAPS, found, _expected()) if one.parts)
    assert (row.operator, row.error, row.reason) == (
        "attention.wq", None, "no finite number in 1 of 64 rows",
    )  # fmt: skip


def test_rows_of_another_shape_are_wrong_and_no_crash() -> None:
    (row,) = operator_errors(DEVICE, TAPS, _expected()[:, :-1], _expected())
    assert row.parts
    assert "(64, 47)" in row.reason


def _row(stage: str, layer: int | None, operator: str, *, parts: bool = True) -> OperatorError:
    error = 3.0 if parts else 0.1
    return OperatorError(stage, layer, operator, error, 0.1, 0.1, parts)


def test_the_earliest_stage_is_blamed_and_in_it_the_first_operator() -> None:
    weights = [_row(ARTIFACT, 1, "feed_forward.w2")]
    pieces = [
        _row(HOST, None, "layer 1 after attention, norm and output"),
        _row(HOST, 0, "attention"),
        _row(DEVICE, 0, "key"),
    ]
    inside = [_row(HOST, 0, "attention_norm", parts=False), _row(HOST, 0, "attention")]
    found = blamed(weights, pieces, inside)
    assert found is not None
    assert (found.stage, found.operator) == (ARTIFACT, "feed_forward.w2")
    found = blamed([], pieces, inside)
    assert found is not None
    assert (found.stage, found.layer, found.operator) == (HOST, 0, "attention")
    found = blamed([], pieces[2:], [])
    assert found is not None
    assert (found.stage, found.operator) == (DEVICE, "key")
    assert blamed([], [_row(HOST, 0, "key", parts=False)], []) is None


def test_a_layer_that_agrees_once_its_values_are_brought_out_is_said_to() -> None:
    found = blamed([], [_row(HOST, 2, "value")], [_row(HOST, 2, "attention.wv", parts=False)])
    assert found is not None
    assert found.operator == "value"
    assert "no operator of that layer parts" in found.reason


@pytest.mark.parametrize("place", ["tok_embeddings", "layer 1 after attention, norm and output"])
def test_what_has_no_layer_is_blamed_by_its_name(place: str) -> None:
    found = blamed([], [_row(DEVICE, None, place)], [])
    assert found is not None
    assert (found.layer, found.operator) == (None, place)
