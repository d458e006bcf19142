from __future__ import annotations

import math
from dataclasses import replace

import pytest

from farm.core.result import PerformanceReport
from farm.core.spec import Gate
from farm.judge.gates import (
    correctness_gates,
    describe,
    memory_gates,
    performance_gates,
    unmatched,
    wanted_pairs,
)
from farm.judge.metrics import Comparison, PerplexityChange
from farm.judge.rules import Pair


def pair(
    from_: str, to: str, *, old: float = 20.0, new: float = 20.0, error: float = 0.001
) -> Pair:
    change = PerplexityChange(math.log(new / old), error, 255)
    comparison = Comparison(
        rows=256,
        bit_equal=False,
        non_finite=None,
        cosine_min=0.99,
        kl_mean=0.05,
        kl_max=0.4,
        top1_agreement=0.9,
        max_abs_error=1.5,
        perplexity_from=old,
        perplexity_to=new,
        perplexity_change=change,
    )
    return Pair(from_, to, "decode", comparison)


def speed(metric: str, median: float | None, **changes: object) -> PerformanceReport:
    report = PerformanceReport(
        metric=metric,
        unit="tok/s",
        regime="warm",
        threads=2,
        affinity="0-1",
        definition="",
        median=median,
        ci95=None if median is None else (median * 0.9, median * 1.1),
        min_detectable_change=None,
        samples=(),
        gates=(),
        trust="ok",
    )
    return replace(report, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "value", "passed"),
    [
        ("<=", 20.0, True),
        ("<", 20.0, False),
        (">=", 20.1, False),
        (">", 19.9, True),
        ("==", 20, True),
    ],
)
def test_operators_on_an_absolute_bound(op: str, value: float, passed: bool) -> None:
    gate = Gate("perplexity", op, value)  # type: ignore[arg-type]
    (result,) = correctness_gates([gate], [pair("host_pte", "device_pte")])
    assert (result.passed, result.value, result.threshold) == (passed, 20.0, value)


def test_a_factor_of_the_host() -> None:
    gate = Gate("perplexity", "<=", 1.01, "host", "<= 1.01x host")
    (good,) = correctness_gates([gate], [pair("host_pte", "device_pte", new=20.1)])
    (bad,) = correctness_gates([gate], [pair("host_pte", "device_pte", new=21.0)])
    assert good.passed is True
    assert good.threshold == pytest.approx(20.2)
    assert bad.passed is False
    assert "21" in describe(bad)
    assert "<= 1.01x host" in describe(bad)


def test_outside_the_bound_but_inside_the_noise_is_undecided() -> None:
    gate = Gate("perplexity", "<=", 1.01, "host")
    (result,) = correctness_gates([gate], [pair("host_pte", "device_pte", new=20.4, error=0.02)])
    assert result.passed is None
    assert "255 tokens" in result.reason


def test_gates_relative_to_another_stage_ask_for_its_comparison() -> None:
    gates = [
        Gate("perplexity", "<=", 1.3, "eager_fp32"),
        Gate("kl_mean", "<=", 1.5, "host"),
        Gate("kl_mean", "<=", 0.3),
        Gate("decode_tok_s", ">=", 5),
    ]
    assert wanted_pairs(gates) == {("eager_fp32", "device_pte"), ("eager_fp32", "host_pte")}


def test_kl_is_taken_from_fp32_to_the_device() -> None:
    pairs = [pair("eager_fp32", "device_pte"), pair("eager_fp32", "host_pte")]
    (absolute,) = correctness_gates([Gate("kl_mean", "<=", 0.04)], pairs)
    (relative,) = correctness_gates([Gate("kl_mean", "<=", 1.5, "host")], pairs)
    assert (absolute.value, absolute.passed) == (0.05, False)
    assert relative.threshold == pytest.approx(0.075)
    assert relative.passed is True


def test_without_a_reference_nothing_is_decided() -> None:
    gates = [Gate("kl_mean", "<=", 0.1), Gate("perplexity", "<=", 1.1, "eager_fp32")]
    for result in correctness_gates(gates, [pair("host_pte", "device_pte")]):
        assert result.passed is None
        assert "eager" in result.reason


@pytest.mark.parametrize(
    ("gate_metric", "metric", "applies"),
    [
        ("decode_tok_s", "tg64", True),
        ("decode_tok_s", "tg64@d512", True),
        ("decode_tok_s", "pp128", False),
        ("tg64", "tg64", True),
        ("tg64", "tg64@d512", False),
        ("ttft_s", "ttft@pp512", True),
        ("load_s", "load", True),
        ("inter_token_s", "inter_token", True),
    ],
)
def test_which_metrics_a_gate_is_about(gate_metric: str, metric: str, applies: bool) -> None:
    assert bool(performance_gates([Gate(gate_metric, ">=", 1)], speed(metric, 10.0))) == applies


def test_an_invalid_or_missing_speed_is_not_decided() -> None:
    gate = Gate("decode_tok_s", ">=", 5)
    (invalid,) = performance_gates([gate], speed("tg64", 10.0, trust="invalid"))
    (missing,) = performance_gates([gate], speed("tg64", None))
    assert invalid.passed is None
    assert missing.passed is None
    assert invalid.reason
    assert missing.reason


def test_a_noisy_speed_is_decided_only_away_from_the_bound() -> None:
    near = Gate("decode_tok_s", ">=", 9.5)
    far = Gate("decode_tok_s", ">=", 5)
    report = speed("tg64", 10.0, trust="noisy")
    assert performance_gates([near], report)[0].passed is None
    assert performance_gates([far], report)[0].passed is True


def test_a_gate_on_nothing_measured_is_not_dropped() -> None:
    gates = [Gate("decode_tok_s", ">=", 5), Gate("tg128", ">=", 5), Gate("perplexity", "<=", 9)]
    assert [g.metric for g in unmatched(gates, ["tg64", "pp128"])] == ["tg128"]


def test_relative_speed_has_nothing_to_refer_to() -> None:
    (result,) = performance_gates([Gate("decode_tok_s", ">=", 0.9, "host")], speed("tg64", 10.0))
    assert result.passed is None


def test_memory() -> None:
    gate = Gate("peak_rss_bytes", "<=", 150e6)
    assert memory_gates([gate], 140_000_000)[0].passed is True
    assert memory_gates([gate], 160_000_000)[0].passed is False
    assert memory_gates([gate], None)[0].passed is None
