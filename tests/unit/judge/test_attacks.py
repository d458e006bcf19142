"""What could turn a cell green without anybody having looked: each fails, or is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from farm.core.artifact import TensorCheck
from farm.core.runner import RunnerBuild
from farm.core.tasks import CompareTask
from farm.judge.cell import judge_cell
from farm.judge.correctness import EVERY_PATH, StageLogits
from farm.judge.logits import Logits, Matrix, every_position
from farm.judge.rules import MIN_ROWS
from farm.judge.weights import weight_fault
from models.reference.anchors import anchor_error, make_anchor
from models.texts import forced_tokens
from tests.unit.judge.builders import TEXT, Case, build, disturbed, judge, language

Given = dict[str, dict[str, Logits]]


def given(case: Case) -> Given:
    return {stage: dict(paths) for stage, paths in case.logits().items()}


def shorter(found: Given, stage: str) -> None:
    """A reference of fewer tokens: the rows that both have would agree."""
    found[stage][EVERY_PATH] = every_position(np.asarray(found[stage][EVERY_PATH].values)[:40])


def absent(found: Given, stage: str) -> None:
    del found[stage]["prefill"]


def alone_with_nan(found: Given, stage: str) -> None:
    """Nothing to compare with: no pair of stages would tell of it."""
    values = np.array(found[stage]["decode"].values)
    values[3, 3] = np.nan
    found[stage]["decode"] = replace(found[stage]["decode"], values=values)
    for other in set(found) - {stage}:
        del found[other]


@pytest.mark.parametrize(
    ("attack", "stage", "outcome", "words"),
    [
        (shorter, "eager_fp32", "failed", "logits of eager_fp32 have shape (40, 300)"),
        (shorter, "eager_quantised", "failed", "eager_quantised (every): shape"),
        (absent, "device_pte", "inconclusive", "device_pte: logits: it gave none of prefill"),
        (absent, "host_pte", "inconclusive", "host_pte: logits: it gave none of prefill"),
        (alone_with_nan, "device_pte", "failed", "NaN or infinity in the logits of device_pte"),
    ],
)
def test_logits_that_are_not_all_there_never_pass(
    attack: Callable[[Given, str], None], stage: str, outcome: str, words: str
) -> None:
    case = Case()
    found: Given = given(case)
    attack(found, stage)
    logits: StageLogits = found
    judgement = judge_cell(case.task(), logits, generated_text=TEXT)
    assert judgement.outcome == outcome
    assert words in judgement.reason


def on_arm() -> tuple[Case, CompareTask, Matrix]:
    """A healthy case, its task on a device of another instruction set, and the host's logits."""
    case = Case()
    case.host = host = disturbed(case.fp32, 0.1)
    task = case.task()
    arm: RunnerBuild = replace(build("b" * 64), abi="arm64-v8a")
    return case, replace(task, run=replace(task.run, runner=arm)), host


def test_a_device_that_returns_the_hosts_file_is_not_believed() -> None:
    """Another instruction set sums in another order: its bits can't be the host's."""
    case, task, host = on_arm()
    judgement = judge_cell(task, case.logits(), generated_text=TEXT)
    assert judgement.outcome == "inconclusive"
    assert "did the device compute them?" in judgement.reason
    case.device = disturbed(host, 0.01)
    assert judge_cell(task, case.logits(), generated_text=TEXT).outcome == "passed"


def test_few_rows_of_equal_bits_are_believed_where_other_rows_differ() -> None:
    case, task, host = on_arm()
    prefill = case.logits()["device_pte"]["prefill"]
    assert len(prefill.positions) < MIN_ROWS
    case.device = disturbed(host, 0.01)
    found = given(case)
    found["device_pte"]["prefill"] = prefill
    assert judge_cell(task, found, generated_text=TEXT).outcome == "passed"
    found["device_pte"]["decode"] = found["host_pte"]["decode"]
    assert judge_cell(task, found, generated_text=TEXT).outcome == "inconclusive"


def test_stages_that_nobody_has_are_named() -> None:
    assert "no_host_run" in judge(Case(has_host=False)).flags
    assert "text_not_judged" in judge(Case(), None).flags
    case = Case()
    found = given(case)
    del found["eager_quantised"]
    task = case.task()
    ref = task.reference
    assert ref.eager_quantised is None
    logits = task.run.launches[0].logits[0][1]
    task = replace(task, reference=replace(ref, eager_fp32=logits))
    judgement = judge_cell(task, found, generated_text=TEXT)
    assert "quantisation_not_checked" in judgement.flags


def test_nan_is_in_no_tensor_that_passes() -> None:
    good = TensorCheck("w", 4, error=0.05, gain=1.0, steps=0.5, scale_error=0.0)
    assert not weight_fault(good)
    for field in ("gain", "steps", "scale_error"):
        assert weight_fault(replace(good, **{field: math.nan})), field  # type: ignore[arg-type]
    assert weight_fault(TensorCheck("norm", None, error=math.nan, gain=1.0))


def test_an_anchor_sees_nan_in_any_row() -> None:
    logits, tokens = language()
    anchor = make_anchor("m", "0" * 64, "made here", tokens, logits)
    broken = logits.copy()
    broken[-1] = np.nan
    assert anchor_error(anchor, logits) < 1e-4
    assert math.isnan(anchor_error(anchor, broken))


class _Words:
    """A tokenizer whose ids are the letters."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


@pytest.mark.parametrize(
    ("text", "fine"), [("a" * 64, False), ("ab" * 32, False), ("the quick brown fox " * 4, True)]
)
def test_a_text_of_one_token_is_refused(text: str, fine: bool) -> None:
    from farm.core.errors import ExportError

    tokenizer = _Words()
    if fine:
        assert len(forced_tokens(tokenizer, text, 64)) == 64  # type: ignore[arg-type]
        return
    with pytest.raises(ExportError, match="give natural text"):
        forced_tokens(tokenizer, text, 64)  # type: ignore[arg-type]
