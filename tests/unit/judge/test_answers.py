"""Answers that came as text, judged by eager logits."""

from __future__ import annotations

import numpy as np
import pytest

from farm.judge.answers import MAX_REGRET, Answer, judge_answer


def answer(ids: tuple[int, ...], favourite: tuple[int, ...], lead: float = 5.0) -> Answer:
    logits = np.zeros((len(ids), 50), dtype=np.float32)
    logits[np.arange(len(ids)), list(favourite)] = lead
    return Answer("eager_fp32", ids, logits)


def test_the_models_own_choice_costs_nothing() -> None:
    stage, gate = judge_answer(answer((1, 2, 3, 4), (1, 2, 3, 4)))
    assert (gate.passed, gate.value, stage.top1_agreement) == (True, 0.0, 1.0)
    assert stage.first_divergence is None
    assert (stage.from_, stage.to, stage.tokens) == ("eager_fp32", "device_text", 4)


def test_a_near_tie_is_forgiven() -> None:
    stage, gate = judge_answer(answer((1, 2, 3, 4), (1, 2, 3, 9), lead=0.4))
    assert gate.passed is True
    assert (stage.top1_agreement, stage.first_divergence) == (0.75, 3)
    assert gate.value == pytest.approx(0.1)


def test_other_words_fail() -> None:
    _, gate = judge_answer(answer((1, 2, 3, 4), (5, 6, 7, 8)))
    assert gate.passed is False
    assert gate.value is not None
    assert gate.value > MAX_REGRET


def test_a_short_answer_decides_nothing() -> None:
    _, gate = judge_answer(answer((1, 2), (5, 6)))
    assert gate.passed is None
    assert "2 tokens" in gate.reason
