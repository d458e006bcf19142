"""Weights of an artifact: what integers allow passes, whatever is beyond is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from farm.core.artifact import ExportResult, TensorCheck
from farm.judge.weights import weight_fault, weight_gates, weights_condition
from tests.unit.judge.builders import Case, judge

HEALTHY = TensorCheck(
    "layers.0.feed_forward.w2.weight",
    4,
    error=0.1,
    gain=0.995,
    steps=0.52,
    scale_error=0.0039,
    scale_rounding=2.0**-8,
)
FLOAT = TensorCheck("norm.weight", None, error=0.0, gain=1.0)


def exported(*checks: TensorCheck) -> ExportResult:
    return replace(Case().task().export, weights=checks, no_weights="")


def test_what_integers_allow_passes() -> None:
    (gate,) = weight_gates(exported(HEALTHY, FLOAT))
    assert (gate.passed, gate.value, gate.reason) == (True, 0.0, "")
    assert "2 tensors" in gate.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale_error": 0.01}, "a scale is off by 1.0%"),
        ({"scale_error": 1.0}, "a scale is off"),
        ({"steps": 0.6}, "a weight is off by 0.6 steps"),
        ({"steps": float("inf")}, "a weight is off by inf steps"),
        ({"steps": float("nan")}, "a weight is off by nan steps"),
        ({"gain": 0.8}, "it holds 0.8000"),
        ({"reason": "no constant"}, "no constant"),
        ({"steps": None}, "its scales were not compared"),
        ({"error": None}, "it was not compared"),
    ],
)
def test_a_faulty_tensor_is_named(changes: dict[str, Any], said: str) -> None:
    broken = replace(HEALTHY, **changes)
    assert weight_fault(broken).startswith(said)
    (gate,) = weight_gates(exported(FLOAT, broken))
    assert (gate.passed, gate.value) == (False, 1.0)
    assert gate.reason.startswith(f"layers.0.feed_forward.w2.weight: {said}")


def test_a_float_tensor_has_to_be_the_same() -> None:
    assert weight_fault(replace(FLOAT, error=1e-5)) == "relative error 1e-05"


def test_half_precision_sources_round_more() -> None:
    check = replace(HEALTHY, steps=0.58)
    assert weight_fault(check)
    assert weight_fault(replace(check, source_rounding=2.0**-8)) == ""


def test_many_faults_are_counted() -> None:
    broken = [replace(HEALTHY, name=f"w{i}", gain=0.5) for i in range(5)]
    (gate,) = weight_gates(exported(*broken))
    assert gate.value == 5.0
    assert gate.reason.endswith("and 2 more")


def test_what_was_not_read_back_is_no_gate_and_said() -> None:
    export = replace(exported(), no_weights="a GGUF is taken as it is")
    assert weight_gates(export) == []
    assert weights_condition(export) == {"weights": "not read back: a GGUF is taken as it is"}
    assert "worst 0.520 steps in layers.0" in weights_condition(exported(FLOAT, HEALTHY))["weights"]


def test_a_cell_is_blamed_on_its_weights_first() -> None:
    case = Case(weights=(replace(HEALTHY, gain=0.5),))
    case.device = case.fp32 * 3
    judgement = judge(case)
    assert judgement.outcome == "failed"
    assert judgement.reason.startswith("source -> artifact")
    assert "weights_not_checked" in judge(Case(weights=())).flags
