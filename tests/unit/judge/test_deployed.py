"""A deployed version against its run: right, wrong, or said to be not judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from farm.core.deployment import Answer, Rate
from farm.core.runtime import Measure, Sample
from farm.judge.deployed import answer_gate, rate_gate
from tests.unit.judge.builders import check_launch

ANSWER = Answer((1, 2), (3, 4, 0, 1), 8, (9,), bit_equal=True)
MEASURE = Measure("tg64", 0, 64, 0, 3, 1)


def test_the_answer_has_to_be_the_runs_own() -> None:
    launch = replace(check_launch(), generated=(3, 4, 0, 1))
    assert answer_gate(ANSWER, launch, None).passed is True
    for wrong, where in (((3, 4, 2, 1), "token 3"), ((3, 4, 0), "token 4"), ((), "token 1")):
        gate = answer_gate(ANSWER, replace(launch, generated=wrong), None)
        assert gate.passed is False
        assert where in gate.reason


def test_a_device_that_gave_no_answer_gave_none_that_is_right() -> None:
    silent = replace(check_launch(), generated=None)
    gate = answer_gate(replace(ANSWER, ids=()), silent, None)
    assert gate.passed is None
    assert "no answer" in gate.reason


@pytest.mark.parametrize(("behind", "passed"), [(0.2, True), (3.0, False)])
def test_where_the_run_was_not_bit_equal_a_near_tie_may_fall_otherwise(
    behind: float, passed: bool
) -> None:
    launch = replace(check_launch(), generated=(3, 4, 2, 1))
    logits = np.zeros((4, 5), dtype=np.float32)
    logits[range(4), ANSWER.ids] = 10.0
    logits[2] = 0.0
    logits[2, [0, 2]] = 10.0, 10.0 + behind * 4
    gate = answer_gate(replace(ANSWER, bit_equal=False), launch, logits)
    assert gate.passed is passed
    assert bool(gate.reason) is not passed


def sample(seconds: float, *, warmup: bool = False) -> Sample:
    return Sample("tg64", 0, 0, warmup, 64, seconds)


@pytest.mark.parametrize(("rate", "passed"), [(100.0, True), (68.0, True), (67.0, False)])
def test_a_rate_may_drift_but_not_break_down(rate: float, passed: bool) -> None:
    launch = replace(check_launch(), samples=(sample(64 / rate), sample(9.0, warmup=True)))
    gate = rate_gate(Rate(MEASURE, 100.0, 90.0), [launch])
    assert gate.passed is passed
    assert gate.value == pytest.approx(rate)


def test_a_rate_that_was_not_timed_has_no_verdict() -> None:
    gate = rate_gate(Rate(MEASURE, 100.0, 90.0), [replace(check_launch(), samples=())])
    assert (gate.passed, gate.value) == (None, None)
    assert "no window" in gate.reason
