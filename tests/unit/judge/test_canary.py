"""The canary's verdict: within a ten-thousandth of PyTorch, or the cell has failed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from farm.core.artifact import CanaryProgram, LogitsRef
from farm.core.rules.launches import canary_passes
from farm.core.tasks import CompareTask
from farm.judge.canary import canary_error
from farm.judge.cell import judge_cell
from farm.judge.logits import Matrix
from tests.unit.judge.builders import TEXT, Case, check_launch, obj

ROWS, COLUMNS = 9, 5
PROGRAM = CanaryProgram(
    obj("canary.pte"), tuple(range(ROWS)), LogitsRef(obj("expected"), ROWS, COLUMNS)
)
EXPECTED = np.random.default_rng(3).standard_normal((ROWS, COLUMNS)).astype(np.float32)


def task() -> CompareTask:
    refs = tuple(
        (one.name, LogitsRef(obj(one.name), len(one.chunks), COLUMNS))
        for one in canary_passes(PROGRAM)
    )
    base = Case().task()
    run = replace(base.run, canary=replace(check_launch(), logits=refs))
    return replace(base, canary=PROGRAM, run=run)


def error(changed: Matrix, task: CompareTask) -> float | None:
    """The canary's error when the device's logits are taken from a changed matrix."""
    rows = {one.name: list(one.positions) for one in canary_passes(PROGRAM)}

    def opened(ref: LogitsRef) -> Matrix:
        return EXPECTED if ref == PROGRAM.expected else changed[rows[ref.object.name]]

    return canary_error(task, opened)


def test_both_passes_cover_odd_chunks_to_the_end() -> None:
    decode, prefill = canary_passes(PROGRAM)
    assert decode.positions == tuple(range(ROWS))
    assert prefill.positions[-1] == ROWS - 1
    assert len(prefill.chunks) == 3


def test_a_long_canary_is_run_at_once_again_and_again() -> None:
    long = replace(PROGRAM, tokens=tuple(range(397)))
    decode, prefill, *wide = canary_passes(long)
    assert decode.positions[-1] == prefill.positions[-1] == 89
    assert {(one.chunks, one.positions) for one in wide} == {((397,), (396,))}
    assert len({one.name for one in wide}) == len(wide) == 12, "a race shows now and then only"


@pytest.mark.parametrize(("by", "passed"), [(0.0, True), (9e-5, True), (2e-4, False)])
def test_the_largest_difference_decides(by: float, passed: bool) -> None:
    changed = EXPECTED.copy()
    changed[-1, 2] += by
    found = error(changed, task())
    assert found == pytest.approx(by, abs=1e-6)
    judgement = judge_cell(task(), Case().logits(), generated_text=TEXT, canary=found)
    assert judgement.correctness is not None
    assert judgement.correctness.canary is not None
    assert judgement.correctness.canary.max_abs_error == found
    assert judgement.outcome == ("passed" if passed else "failed")
    if not passed:
        assert "kernels compute wrongly on this device: logits differ by 0.0002" in judgement.reason


def test_what_is_no_number_fails_and_is_null() -> None:
    changed = EXPECTED.copy()
    changed[0, 0] = np.nan
    found = error(changed, task())
    assert found == math.inf
    judgement = judge_cell(task(), Case().logits(), generated_text=TEXT, canary=found)
    assert judgement.outcome == "failed"
    assert judgement.correctness is not None
    assert judgement.correctness.canary is not None
    assert judgement.correctness.canary.max_abs_error is None


def test_a_missing_pass_is_no_pass() -> None:
    full = task()
    assert full.run.canary is not None
    cut = replace(full.run.canary, logits=full.run.canary.logits[:1])
    assert error(EXPECTED, replace(full, run=replace(full.run, canary=cut))) == math.inf


def test_without_a_canary_the_cell_says_so() -> None:
    bare = Case(has_canary=False)
    assert canary_error(bare.task(), lambda _ref: EXPECTED) is None
    judgement = judge_cell(bare.task(), bare.logits(), generated_text=TEXT)
    assert judgement.outcome == "passed"
    assert "no_canary" in judgement.flags


def test_what_the_device_ran_and_nobody_can_compare_is_no_canary() -> None:
    """A resumed run whose canary can't be made anew."""
    blind = replace(task(), canary=None)
    judgement = judge_cell(blind, Case().logits(), generated_text=TEXT)
    assert "no_canary" in judgement.flags
