"""A high perplexity lets a model off only where a source confirms that it is the model's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from farm.core.judgement import Judgement
from farm.core.reference import SourceCheck
from farm.judge.cell import judge_cell
from tests.unit.judge import builders
from tests.unit.judge.builders import TEXT, Case

AGREES = SourceCheck("anchor", 48, True, 1e-6)
DISAGREES = SourceCheck("anchor", 48, True, 3.0)
NOBODY = SourceCheck(reason="nobody to ask")
GARBAGE = "\N{REPLACEMENT CHARACTER}" * 30

BOTH = pytest.mark.parametrize("text", [TEXT, GARBAGE], ids=["language", "garbage"])


def judged(source: SourceCheck, text: str) -> Judgement:
    """A model whose eager perplexity is that of random weights."""
    case = Case()
    random = np.random.default_rng(9)
    case.fp32 = random.standard_normal((builders.TOKENS, builders.VOCABULARY)).astype(np.float32)
    case.fp32[np.arange(builders.TOKENS - 1), case.tokens[1:]] -= 6
    task = case.task()
    task = replace(task, reference=replace(task.reference, source=source))
    return judge_cell(task, case.logits(), generated_text=text)


def gate(judgement: Judgement) -> bool | str | None:
    assert judgement.correctness is not None
    found = [g.passed for g in judgement.correctness.gates if g.metric == "text"]
    return found[0] if found else "none"


@BOTH
def test_a_confirmed_random_model_is_let_off(text: str) -> None:
    judgement = judged(AGREES, text)
    assert gate(judgement) == "none"
    assert "text_not_judged" in judgement.flags


@BOTH
def test_a_checkpoint_that_the_source_reads_differently_fails(text: str) -> None:
    judgement = judged(DISAGREES, text)
    assert gate(judgement) is False
    assert judgement.outcome == "failed"


@BOTH
def test_without_a_source_nothing_is_decided(text: str) -> None:
    judgement = judged(NOBODY, text)
    assert gate(judgement) is None
    assert judgement.outcome == "inconclusive"
    assert "no source to tell which" in judgement.reason
