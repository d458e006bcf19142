from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from farm.codec import to_json
from farm.core.artifact import Delegation, LogitsRef
from farm.core.result import Judgement, PerformanceReport
from farm.core.runtime import LaunchResult
from farm.core.spec import Gate, Workload
from farm.core.telemetry import WindowEnergy
from farm.judge.cell import judge_cell, stage_logits
from farm.judge.logits import Matrix
from tests.unit.judge import builders
from tests.unit.judge.builders import (
    TEXT,
    Case,
    check_launch,
    disturbed,
    facts,
    launch,
    telemetry,
)


def judge(case: Case, text: str | None = TEXT) -> Judgement:
    return judge_cell(case.task(), case.logits(), generated_text=text)


def metric(judgement: Judgement, name: str, regime: str = "warm") -> PerformanceReport:
    return next(p for p in judgement.performance if (p.metric, p.regime) == (name, regime))


def test_a_healthy_cell_passes_and_is_trusted() -> None:
    judgement = judge(Case(gates=(Gate("perplexity", "<=", 1.01, "host"),)))
    assert (judgement.outcome, judgement.reason, judgement.flags) == ("passed", "", ())
    assert judgement.correctness is not None
    chain = [(s.from_, s.to, s.path) for s in judgement.correctness.stages]
    assert chain == [
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


def test_metrics_have_values_units_and_intervals() -> None:
    judgement = judge(Case())
    expected = {
        "pp64": ("tok/s", 64 / 0.2),
        "tg32": ("tok/s", 32 / 0.4),
        "ttft": ("s", 0.2),
        "inter_token": ("s", 0.4 / 32),
        "load": ("s", 0.25),
    }
    assert {p.metric for p in judgement.performance} == set(expected)
    for name, (unit, value) in expected.items():
        report = metric(judgement, name)
        assert report.unit == unit
        assert report.median is not None
        assert report.median == pytest.approx(value, rel=0.03)
        assert report.ci95 is not None
        assert report.ci95[0] <= report.median <= report.ci95[1]
        assert report.threads == 2
        assert report.definition
    # Warm-up windows are no samples: 3 launches x 3 repetitions remain.
    assert len(metric(judgement, "tg32").samples) == 9
    assert judgement.memory.peak_rss_bytes == 140_000_000
    assert judgement.memory.launches_bytes == (133_000_001, 133_000_002, 133_000_003)


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


def test_slow_is_no_failure_unless_a_gate_asks() -> None:
    slow = (check_launch(), *(launch(n, decode_s=40.0) for n in (1, 2, 3)))
    assert judge(Case(launches=slow)).outcome == "passed"
    judgement = judge(Case(launches=slow, gates=(Gate("decode_tok_s", ">=", 5, text=">= 5"),)))
    assert judgement.outcome == "failed"
    assert judgement.reason.startswith("decode_tok_s 0.8")


def test_a_wrong_token_count_is_invalid() -> None:
    launches = (check_launch(), launch(1), launch(2, tokens=31), launch(3))
    judgement = judge(Case(launches=launches))
    assert metric(judgement, "tg32").trust == "invalid"
    assert metric(judgement, "pp64").trust == "ok"
    assert "token_count" in judgement.flags


def test_a_token_count_is_that_of_one_pass() -> None:
    def often(found: LaunchResult, passes: int) -> LaunchResult:
        samples = [
            replace(s, tokens=passes * s.tokens, token_s=passes * s.token_s, passes=passes)
            for s in found.samples
        ]
        return replace(found, samples=tuple(samples))

    judgement = judge(Case(launches=(check_launch(), *(often(launch(n), 3) for n in (1, 2, 3)))))
    assert "token_count" not in judgement.flags
    launches = (check_launch(), launch(1), often(launch(2, tokens=31), 3), launch(3))
    judgement = judge(Case(launches=launches))
    assert metric(judgement, "tg32").trust == "invalid"
    assert metric(judgement, "pp64").guards["token_count"] == "ok"


def test_scatter_is_noisy_and_short_windows_are_unverified() -> None:
    scattered = (check_launch(), *(launch(n, decode_s=0.3 * n) for n in (1, 2, 3)))
    judgement = judge(Case(launches=scattered))
    assert metric(judgement, "tg32").trust == "noisy"
    short = (check_launch(), *(launch(n, decode_s=0.05) for n in (1, 2, 3)))
    judgement = judge(Case(launches=short))
    assert metric(judgement, "tg32").trust == "unverified"
    assert "short_window" in judgement.flags


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


def test_a_number_beside_other_programs_passes_gates_but_fails_none() -> None:
    busy = tuple(telemetry(number, others=1.0) for number in (1, 2, 3))
    gates = (Gate("decode_tok_s", ">=", 5), Gate("prefill_tok_s", ">=", 1e6))
    judgement = judge(Case(telemetry=busy, gates=gates))
    assert metric(judgement, "tg32").gates[0].passed is True
    assert metric(judgement, "pp64").gates[0].passed is None
    assert judgement.outcome == "inconclusive"
    assert "other programs used 1.0 cores" in judgement.conditions["guard_load"]


def test_kernels_of_farms_own_are_told() -> None:
    kernels = ("llama::custom_sdpa.out=farm", "xnnpack::qd8_f32_qb4w=farm", "other=stock")
    launches = tuple(
        replace(launch, hello=replace(launch.hello, kernels=kernels)) for launch in Case().launches
    )
    told = judge(Case(launches=launches)).conditions["own_kernels"]
    assert told == "llama::custom_sdpa.out, xnnpack::qd8_f32_qb4w"


def test_an_invalid_number_passes_and_fails_nothing() -> None:
    capped = tuple(telemetry(number, throttled=9, throttled_s=2.0) for number in (1, 2, 3))
    gates = (Gate("decode_tok_s", ">=", 5), Gate("prefill_tok_s", ">=", 1e6))
    judgement = judge(Case(telemetry=capped, gates=gates))
    assert metric(judgement, "tg32").trust == "invalid"
    assert [metric(judgement, m).gates[0].passed for m in ("tg32", "pp64")] == [None, None]
    assert "hidden_cap" in judgement.flags


def test_energy_is_of_decoded_tokens_or_null_with_a_reason() -> None:
    gauged = tuple(
        telemetry(
            number,
            energy=(WindowEnergy("tg32", 9.6, 96, 3.0), WindowEnergy("pp64", 90.0, 192, 3.0)),
            energy_source="fuel gauge",
        )
        for number in (1, 2, 3)
    )
    energy = judge(Case(telemetry=gauged)).energy
    assert energy.j_per_token == pytest.approx(0.1)
    assert energy.source == "fuel gauge"
    assert energy.mean_w == pytest.approx(3.2)
    charging = (telemetry(1, energy_source="the battery is Charging"),)
    energy = judge(Case(telemetry=charging)).energy
    assert (energy.j_per_token, energy.reason) == (None, "the battery is Charging")


def test_the_first_load_after_a_push_is_a_regime_of_its_own() -> None:
    first = replace(check_launch(), regime="first_ever")
    judgement = judge(Case(launches=(first, launch(1), launch(2), launch(3)), pushed_bytes=1000))
    assert [s.value for s in metric(judgement, "load", "first_ever").samples] == [0.3]
    assert len(metric(judgement, "load").samples) == 3
    assert [p.regime for p in judge(Case()).performance if p.metric == "load"] == ["warm"]


def test_a_cold_launch_has_rows_of_its_own_and_a_warmed_window_in_it_is_warm() -> None:
    unwarmed = launch(1, prefill_s=0.9, load_s=0.8)
    samples = tuple(s for s in unwarmed.samples if s.metric == "pp64" and not s.warmup)[:1]
    cold = replace(unwarmed, samples=samples, regime="cold")
    unknown = replace(launch(2, load_s=9.0), regime=None)
    judgement = judge(Case(launches=(cold, check_launch(), unknown, launch(3), launch(4))))
    rows = {(p.metric, p.regime): p for p in judgement.performance}
    assert rows["pp64", "cold"].median == pytest.approx(64 / 0.9, rel=0.05)
    assert rows["ttft", "cold"].median == pytest.approx(0.9, rel=0.05)
    assert rows["load", "cold"].median == pytest.approx(0.8)
    assert ("tg32", "cold") not in rows
    # The launch whose files may have been anywhere: its windows were warmed, its load was not.
    assert {s.launch for s in rows["pp64", "warm"].samples} == {2, 3, 4}
    assert len(rows["load", "warm"].samples) == 2


def test_a_workload_beyond_the_context_has_no_number_and_says_why() -> None:
    long = Workload(prefill=(64,), decode=(32,), depth=(0, 500))
    task = Case().task()
    task = replace(task, spec=replace(task.spec, workload=long))
    judgement = judge_cell(task, Case().logits(), generated_text=TEXT)
    row = metric(judgement, "pp64@d500")
    assert (row.median, row.trust) == (None, "invalid")
    assert row.reason == "needs 564 tokens of context, the artifact has 512"
    assert "too_long" in judgement.flags
    assert "invalid" not in judgement.flags
    assert metric(judgement, "pp64").median is not None


def test_a_measure_without_samples_is_null_with_a_flag() -> None:
    judgement = judge(Case(launches=(check_launch(),), gates=(Gate("decode_tok_s", ">=", 5),)))
    report = metric(judgement, "tg32")
    assert (report.median, report.ci95, report.trust) == (None, None, "invalid")
    assert "not_measured" in judgement.flags
    assert judgement.outcome == "inconclusive"


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
    judgement = judge_cell(case.task(), {}, generated_text=None)
    assert judgement.outcome == "inconclusive"
    assert judgement.reason.startswith("nothing to judge by")


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
    task = replace(task, reference=replace(task.reference, source_max_abs_error=float(error)))
    judgement = judge_cell(task, case.logits(), generated_text=TEXT)
    assert judgement.outcome == outcome
    assert judgement.correctness is not None
    assert judgement.correctness.stages[0].from_ == "source"
    json.loads(to_json(judgement))
