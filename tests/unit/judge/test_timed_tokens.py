"""Tokens of timed windows: equal everywhere, and begun as the checked logits say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from farm.core.result import GateResult
from farm.core.runtime import Chosen, LaunchResult
from farm.core.spec import Workload
from farm.judge.logits import Logits
from farm.judge.timed_tokens import timed_token_gates, timed_tokens_condition
from tests.unit.judge.builders import launch

WORKLOAD = Workload(prefill=(64,), decode=(3,))
DECODE, PREFILL = Chosen(9, (5, 6, 7)), Chosen(0, (4,))


def _logits(position: int, best: int) -> Logits:
    row = np.zeros((1, 20), np.float32)
    row[0, best] = 1.0
    return Logits(row, (position,))


PASSES = {"decode": _logits(0, 9), "prefill": _logits(63, 4)}


def _launch(number: int, decode: Chosen = DECODE, prefill: Chosen = PREFILL) -> LaunchResult:
    made = launch(number, tokens=3)
    names = {"pp64": ("pp64", prefill), "tg32": ("tg3", decode)}
    samples = [
        replace(one, metric=names[one.metric][0], chosen=names[one.metric][1])
        for one in made.samples
    ]
    return replace(made, samples=tuple(samples))


def _gates(*launches: LaunchResult) -> dict[str, GateResult]:
    found = timed_token_gates(WORKLOAD, launches, PASSES)
    assert {gate.metric for gate in found} == {"timed_tokens"}
    return {gate.text.partition(":")[0]: gate for gate in found}


def test_equal_windows_pass_and_say_how_many() -> None:
    gates = _gates(_launch(0), _launch(1))
    assert all(gate.passed for gate in gates.values())
    text = gates["device_pte (tg3)"].text
    assert text.endswith("equal tokens in 8 windows, begun as the checked logits say")


@pytest.mark.parametrize(
    ("decode", "said"),
    [
        (Chosen(9, (5, 6, 8)), "token 2 of a timed window in launch 1"),
        (Chosen(9, (5, 6)), "token 2 of a timed window in launch 1"),
        (Chosen(8, (5, 6, 7)), "launch 1 began with another token"),
        (Chosen(9, (5, 6, 7), odd=7), "token 1 of pass 2 of a timed window in launch 1"),
    ],
)
def test_another_token_fails_with_its_place(decode: Chosen, said: str) -> None:
    gate = _gates(_launch(0), _launch(1, decode))["device_pte (tg3)"]
    assert gate.passed is False
    assert said in gate.reason


def test_windows_that_agree_on_a_wrong_beginning_fail() -> None:
    gates = _gates(_launch(0, Chosen(3, (5, 6, 7)), Chosen(0, (2,))))
    assert "begin with token 3, the checked logits (decode) with 9" in (
        gates["device_pte (tg3)"].reason
    )
    assert "begin with token 2, the checked logits (prefill) with 4" in (
        gates["device_pte (pp64)"].reason
    )


def test_a_runner_that_tells_nothing_has_no_gate_and_that_is_said() -> None:
    silent = launch(0)
    assert timed_token_gates(WORKLOAD, [silent], PASSES) == []
    assert timed_tokens_condition([silent]) == {"timed_tokens": "of 0 of 8 windows known"}


def test_the_other_arm_has_another_artifact() -> None:
    other = replace(_launch(1, Chosen(1, (1, 1, 1))), arm="baseline")
    assert all(gate.passed for gate in _gates(_launch(0), other).values())
