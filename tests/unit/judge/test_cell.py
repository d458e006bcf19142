from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from farm.codec import to_json
from farm.core.artifact import Delegation, LogitsRef
from farm.core.reference import SourceCheck
from farm.core.runner import OWN
from farm.core.spec import Gate
from farm.judge.cell import judge_cell, stage_logits
from farm.judge.logits import Matrix
from tests.unit.judge import builders
from tests.unit.judge.builders import (
    TEXT,
    Case,
    check_launch,
    disturbed,
    facts,
    judge,
    launch,
    metric,
)


def test_a_healthy_cell_passes_and_is_trusted() -> None:
    judgement = judge(Case(gates=(Gate("perplexity", "<=", 1.01, "host"),)))
    assert (judgement.outcome, judgement.reason, judgement.flags) == ("passed", "", ())
    assert judgement.correctness is not None
    chain = [(s.from_, s.to, s.path) for s in judgement.correctness.stages]
    assert chain == [
        ("source", "eager_fp32", "decode"),
        ("eager_fp32", "eager_quantised", "decode"),
        ("eager_quantised", "host_pte", "decode"),
        ("host_pte", "device_pte", "decode"),
        ("eager_fp32", "device_pte", "decode"),
        ("eager_quantised", "host_pte", "prefill"),
        ("host_pte", "device_pte", "prefill"),
    ]
    assert all(gate.passed for gate in judgement.correctness.gates)
    assert {p.trust for p in judgement.performance} == {"ok"}
    json.loads(to_json(judgement))
    assert pickle.loads(pickle.dumps(judgement)) == judgement


def test_the_same_binary_must_be_bit_equal() -> None:
    case = Case()
    host = disturbed(case.fp32, 0.1)
    case.host, case.device = host, host.copy()
    case.device[5, 7] = np.nextafter(case.device[5, 7], np.float32(np.inf))
    judgement = judge(case)
    assert judgement.outcome == "failed"
    assert "bit_equal" in judgement.reason or "logits differ" in judgement.reason


#: Backends choose other code on another CPU, whatever the runner itself uses.
OTHER_CODE = pytest.mark.parametrize(
    "other", [{"host_sha": "b" * 64}, {"host_features": ("avx_vnni",)}], ids=["binary", "cpu"]
)


@OTHER_CODE
def test_other_code_is_judged_by_the_noise_floor(other: dict[str, Any]) -> None:
    case = Case(**other)
    host = disturbed(case.fp32, 0.3, 5)
    case.host, case.device = host, disturbed(host, 0.15, 6)
    assert judge(case).outcome == "passed"
    case.device = disturbed(host, 0.6, 6)
    judgement = judge(case)
    assert judgement.outcome == "failed"
    assert "kl_mean" in judgement.reason


def test_without_a_noise_floor_another_binary_is_inconclusive() -> None:
    case = Case(host_sha="b" * 64, noise_floor=None)
    host = disturbed(case.fp32, 0.1)
    case.host, case.device = host, disturbed(host, 0.01, 6)
    judgement = judge(case)
    assert judgement.outcome == "inconclusive"
    assert "noise floor" in judgement.reason


def rolled(matrix: Matrix) -> Matrix:
    """A model whose rows are off by one position: what a wrong cache index does."""
    return np.roll(matrix, 1, axis=0)


@pytest.mark.parametrize("stage", ["quantised", "host", "device"])
def test_a_broken_stage_fails_and_is_named(stage: str) -> None:
    case = Case(host_sha="b" * 64)
    setattr(case, stage, rolled(case.fp32))
    judgement = judge(case)
    assert judgement.outcome == "failed"
    assert {"quantised": "eager_quantised", "host": "host_pte", "device": "device_pte"}[
        stage
    ] in judgement.reason


@pytest.mark.parametrize("stage", ["fp32", "quantised", "host", "device"])
def test_nan_fails_with_the_stage_and_never_reaches_json(stage: str) -> None:
    case = Case()
    broken = case.fp32.copy()
    broken[3, 3] = np.nan
    setattr(case, stage, broken)
    judgement = judge(case)
    assert judgement.outcome == "failed"
    assert "NaN or infinity" in judgement.reason
    assert "position" in judgement.reason
    assert "NaN," not in to_json(judgement)
    assert judgement.correctness is not None
    named = [g for g in judgement.correctness.gates if g.metric == "finite"]
    assert len(named) == len(set(named))


def test_without_a_host_run_the_device_is_compared_with_the_eager_model() -> None:
    judgement = judge(Case(has_host=False))
    assert judgement.outcome == "passed"
    assert judgement.correctness is not None
    assert ("eager_quantised", "device_pte") in {
        (s.from_, s.to) for s in judgement.correctness.stages
    }


def test_a_host_run_that_failed_leaves_the_cell_undecided() -> None:
    judgement = judge(Case(has_host=False, host_error="out of memory"))
    assert (judgement.outcome, judgement.correctness_decision) == ("inconclusive", "undecided")
    assert judgement.reason == "host_pte: the host's run failed: out of memory"


def test_logits_of_the_wrong_shape_fail_instead_of_raising() -> None:
    case = Case()
    case.device = np.zeros((builders.TOKENS, 7), np.float32)
    judgement = judge(case)
    assert judgement.outcome == "failed"
    assert "shape" in judgement.reason


def test_garbage_text_fails_and_makes_the_speed_invalid() -> None:
    judgement = judge(Case(), "!" * 80)
    assert judgement.outcome == "failed"
    assert "garbage_text" in judgement.flags
    assert metric(judgement, "tg32").trust == "invalid"


def test_the_text_of_a_model_without_language_says_nothing() -> None:
    case = Case()
    random = np.random.default_rng(9)
    case.fp32 = random.standard_normal((builders.TOKENS, builders.VOCABULARY)).astype(np.float32)
    case.fp32[np.arange(builders.TOKENS - 1), case.tokens[1:]] -= 6
    judgement = judge(case, "\N{REPLACEMENT CHARACTER}" * 30)
    assert judgement.outcome == "passed"
    assert "garbage_text" not in metric(judgement, "tg32").guards


def test_without_reference_a_huge_perplexity_is_undecided_not_passed() -> None:
    case = Case()
    random = np.random.default_rng(9)
    case.fp32 = random.standard_normal((builders.TOKENS, builders.VOCABULARY)).astype(np.float32)
    case.fp32[np.arange(builders.TOKENS - 1), case.tokens[1:]] -= 6
    logits = case.logits()
    prebuilt = {stage: paths for stage, paths in logits.items() if not stage.startswith("eager")}
    judgement = judge_cell(case.task(), prebuilt, generated_text="?" * 30)
    assert judgement.outcome == "inconclusive"
    assert "no reference" in judgement.reason
    assert metric(judgement, "tg32").trust != "invalid"


def test_no_text_is_no_text_guard() -> None:
    assert "garbage_text" not in metric(judge(Case(), None), "tg32").guards


def test_an_emulated_device_is_judged_for_correctness_only() -> None:
    gate = Gate("decode_tok_s", ">=", 5)
    assert judge(Case(device_facts=facts(emulated=True))).outcome == "passed"
    judgement = judge(Case(device_facts=facts(emulated=True), gates=(gate,)))
    assert judgement.outcome == "inconclusive"
    assert {p.trust for p in judgement.performance} == {"invalid"}
    assert {"emulated", "invalid"} <= set(judgement.flags)


def test_a_fallback_to_the_portable_backend_is_seen() -> None:
    judgement = judge(Case(delegation=Delegation(0, 100)))
    assert judgement.backend_effective == "portable"
    assert metric(judgement, "tg32").guards["backend"] == "flagged"
    assert metric(judgement, "tg32").trust == "invalid"


def test_a_prebuilt_artifact_of_unknown_delegation_is_unverified() -> None:
    silent = [replace(x, hello=replace(x.hello, backends=())) for x in Case().launches]
    judgement = judge(Case(delegation=None, launches=tuple(silent)))
    assert judgement.backend_effective is None
    assert metric(judgement, "tg32").trust == "unverified"


def test_what_the_loaded_program_uses_says_which_backend_ran() -> None:
    assert judge(Case(delegation=None)).backend_effective == "xnnpack"
    bare = tuple(replace(launch, backends=()) for launch in Case().launches)
    judgement = judge(Case(delegation=None, launches=bare))
    assert judgement.backend_effective == "portable"
    assert metric(judgement, "tg32").trust == "invalid"
    assert "backend" in judgement.flags


def test_kernels_of_farms_own_are_told() -> None:
    kernels = ("llama::custom_sdpa.out=farm", "xnnpack::qd8_f32_qb4w=farm", "other=stock")
    launches = tuple(
        replace(launch, hello=replace(launch.hello, kernels=kernels)) for launch in Case().launches
    )
    told = judge(Case(launches=launches)).conditions["own_kernels"]
    assert told == "llama::custom_sdpa.out, xnnpack::qd8_f32_qb4w"


def test_two_launches_with_other_logits_are_not_repeatable() -> None:
    first = check_launch()
    name, ref = first.logits[0]
    other = LogitsRef(replace(ref.object, sha256="f" * 64), ref.rows, ref.cols)
    second = replace(check_launch(), logits=((name, other), first.logits[1]))
    judgement = judge(Case(launches=(first, second, launch(1))))
    assert judgement.outcome == "failed"
    assert "2 different results" in judgement.reason


def test_nothing_to_judge_by_is_inconclusive() -> None:
    case = Case(launches=(launch(1), launch(2)))
    task = replace(case.task(), host=None, runner=replace(OWN, gives_logits=False))
    judgement = judge_cell(task, {}, generated_text=None)
    assert judgement.outcome == "inconclusive"
    assert judgement.reason == "device_pte: nothing to judge the model by: no logits, no text"


def test_stage_logits_opens_what_the_task_names() -> None:
    opened: list[LogitsRef] = []

    def open_ref(ref: LogitsRef) -> Matrix:
        opened.append(ref)
        return np.zeros((ref.rows, ref.cols), np.float32)

    task = Case().task()
    eager = LogitsRef(builders.obj("eager"), builders.TOKENS, builders.VOCABULARY)
    task = replace(task, reference=replace(task.reference, eager_fp32=eager))
    stages = stage_logits(task, open_ref)
    assert set(stages) == {"eager_fp32", "device_pte", "host_pte"}
    assert set(stages["device_pte"]) == {"decode", "prefill"}
    assert opened[0] is eager


@pytest.mark.parametrize(
    ("error", "outcome"), [(1e-5, "passed"), (0.5, "failed"), (np.nan, "failed")]
)
def test_the_source_is_the_first_stage(error: float, outcome: str) -> None:
    case = Case()
    task = case.task()
    source = SourceCheck(by="anchor", tokens=48, ids_equal=True, max_abs_error=float(error))
    task = replace(task, reference=replace(task.reference, source=source))
    judgement = judge_cell(task, case.logits(), generated_text=TEXT)
    assert judgement.outcome == outcome
    assert judgement.correctness is not None
    assert judgement.correctness.stages[0].from_ == "source"
    assert judgement.correctness.stages[0].tokens == 48
    assert "unanchored" not in judgement.flags
    json.loads(to_json(judgement))


@pytest.mark.parametrize(
    ("source", "outcome", "flagged"),
    [
        (SourceCheck(reason="no other source"), "passed", True),
        (SourceCheck("anchor", 48, None, 1e-6), "passed", True),
        (SourceCheck("anchor", 48, True, 1e-6), "passed", False),
        (SourceCheck("anchor", 48, False, 1e-6, "token 0 is 5, the source has 1"), "failed", False),
        (SourceCheck("transformers", 48, True, None), "failed", False),
    ],
)
def test_a_source_that_does_not_fit_fails_and_a_missing_one_is_named(
    source: SourceCheck, outcome: str, flagged: bool
) -> None:
    case = Case()
    task = case.task()
    task = replace(task, reference=replace(task.reference, source=source))
    judgement = judge_cell(task, case.logits(), generated_text=TEXT)
    assert judgement.outcome == outcome
    assert ("unanchored" in judgement.flags) is flagged
    assert judgement.conditions["source"].startswith(source.by or "none: no other source")
    if not source.ids_equal and source.by and source.reason:
        assert source.reason in judgement.reason
