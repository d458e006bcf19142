"""The replayed layer's verdict: what it adds to its inputs points where PyTorch says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from farm.core.artifact import LayerReplay, LogitsRef
from farm.core.judgement import Judgement
from farm.core.result import Canary
from farm.core.rules.launches import replay_passes
from farm.core.tasks import CompareTask
from farm.judge.cell import judge_cell
from farm.judge.logits import Matrix
from farm.judge.replay import LayerCosine, layer_cosine
from tests.unit.judge.builders import TEXT, Case, check_launch, obj

ROWS, COLUMNS = 12, 64
_INPUTS, _ADDED = (LogitsRef(obj(name), ROWS, COLUMNS) for name in ("inputs", "added"))
REPLAY = LayerReplay("key", 3, obj("replay.pte"), _INPUTS, _ADDED)
RANDOM = np.random.default_rng(5)
#: Far larger than what the layer adds, as in a real residual stream.
INPUTS = (100 * RANDOM.standard_normal((ROWS, COLUMNS))).astype(np.float32)
ADDED = RANDOM.standard_normal((ROWS, COLUMNS)).astype(np.float32)


def task() -> CompareTask:
    refs = tuple(
        (one.name, LogitsRef(obj(one.name), len(one.chunks), COLUMNS))
        for one in replay_passes(REPLAY)
    )
    base = Case().task()
    run = replace(base.run, replay=replace(check_launch(), logits=refs))
    return replace(base, export=replace(base.export, replay=REPLAY), run=run)


def cosine(decode: Matrix, prefill: Matrix, given: CompareTask | None = None) -> LayerCosine | None:
    """The cosine when the device's layer adds these matrices [ROWS, COLUMNS]."""
    rows = {one.name: list(one.positions) for one in replay_passes(REPLAY)}
    outputs = {"decode": INPUTS + decode, "prefill": (INPUTS + prefill)[rows["prefill"]]}

    def opened(ref: LogitsRef) -> Matrix:
        return {"inputs": INPUTS, "added": ADDED, **outputs}[ref.object.name]

    return layer_cosine(given or task(), opened)


def turned(by: float, rows: slice) -> Matrix:
    """ADDED with some rows turned so that their cosine becomes 1 - by."""
    other = RANDOM.standard_normal(ADDED.shape)
    norms = (ADDED * ADDED).sum(axis=1, keepdims=True)
    other -= ADDED * ((other * ADDED).sum(axis=1, keepdims=True) / norms)
    other *= np.sqrt(norms / (other * other).sum(axis=1, keepdims=True))
    found = ADDED.copy()
    angle = math.acos(1 - by)
    found[rows] = (math.cos(angle) * ADDED + math.sin(angle) * other)[rows]
    return found


def judged(found: LayerCosine | None, given: CompareTask | None = None) -> tuple[Judgement, Canary]:
    judgement = judge_cell(given or task(), Case().logits(), generated_text=TEXT, layer=found)
    assert judgement.correctness is not None
    assert judgement.correctness.canary is not None
    return judgement, judgement.correctness.canary


def test_every_position_is_in_both_passes_reach() -> None:
    decode, prefill = replay_passes(REPLAY)
    assert decode.positions == REPLAY.tokens == tuple(range(ROWS))
    assert prefill.chunks == (5, 5, 2)


@pytest.mark.parametrize(("by", "passed"), [(0.0, True), (5e-5, True), (3e-4, False)])
def test_the_mean_cosine_of_what_is_added_decides(by: float, passed: bool) -> None:
    changed = turned(by, slice(None))
    found = cosine(changed, changed)
    assert found is not None
    assert found.mean == pytest.approx(1 - by, abs=2e-6)
    judgement, report = judged(found)
    assert judgement.outcome == ("passed" if passed else "failed")
    assert report.layer_cosine == found.mean
    assert report.layer_cosine_min == found.lowest
    assert (report.layer, report.layer_reason) == (3, "")
    if not passed:
        assert "a layer of the model computes wrongly on this device" in judgement.reason


@pytest.mark.parametrize(("factor", "passed"), [(1.002, True), (0.99, False), (1.01, False)])
def test_a_factor_of_the_whole_layer_is_seen_by_its_size(factor: float, passed: bool) -> None:
    for scaled, other in ((ADDED * np.float32(factor), ADDED), (ADDED, ADDED * np.float32(factor))):
        found = cosine(scaled, other)
        assert found is not None
        assert found.mean > 0.99999, "the cosine sees none of it"
        assert found.gain == pytest.approx(factor, abs=1e-4)
        judgement, report = judged(found)
        assert judgement.outcome == ("passed" if passed else "failed")
        assert report.layer_gain == found.gain
        assert passed or "of what it should" in judgement.reason


def test_one_position_that_rounding_moved_fails_nothing_and_is_told() -> None:
    found = cosine(turned(6e-4, slice(4, 5)), ADDED)
    assert found is not None
    assert found.mean > 0.9999
    assert found.lowest == pytest.approx(1 - 6e-4, abs=5e-5)
    assert judged(found)[0].outcome == "passed"


def test_a_fault_of_one_path_is_not_thinned_by_the_other() -> None:
    found = cosine(ADDED, turned(1.5e-4, slice(None)))
    assert found is not None
    assert found.mean < 0.9999


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_fails_and_is_null(value: float) -> None:
    broken = ADDED.copy()
    broken[2, 0] = value
    found = cosine(broken, ADDED)
    assert found is not None
    judgement, report = judged(found)
    assert judgement.outcome == "failed"
    assert report.layer_cosine is None
    assert report.layer_reason == "the device gave NaN, or not every row"


def test_a_missing_pass_is_no_pass() -> None:
    full = task()
    assert full.run.replay is not None
    cut = replace(full.run.replay, logits=full.run.replay.logits[:1])
    found = cosine(ADDED, ADDED, replace(full, run=replace(full.run, replay=cut)))
    assert judged(found)[0].outcome == "failed"


def test_an_artifact_without_a_layer_says_why_the_number_is_absent() -> None:
    base = Case().task()
    reason = "the stock engine exports no layer on its own"
    bare = replace(base, export=replace(base.export, no_replay=reason))
    assert cosine(ADDED, ADDED, bare) is None
    judgement, report = judged(None, bare)
    assert judgement.outcome == "passed"
    assert (report.layer_cosine, report.layer, report.layer_reason) == (None, None, reason)
