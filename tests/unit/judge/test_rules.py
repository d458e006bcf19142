from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from farm.core.artifact import LinearQuantization
from farm.core.hostrun import IsaControl, PathFloor
from farm.core.reference import LearnedBound, SourceCheck
from farm.core.result import GateResult
from farm.judge.metrics import Comparison, NonFinite, PerplexityChange, Relation
from farm.judge.rules import (
    KL_NOTHING,
    KL_NOTHING_DYNAMIC,
    QUANTISATION,
    Pair,
    RuleContext,
    judge_pair,
    judge_source,
)


def comparison(**changes: object) -> Comparison:
    base = Comparison(
        rows=256,
        bit_equal=False,
        non_finite=None,
        cosine_min=0.99,
        kl_mean=0.02,
        kl_max=0.2,
        top1_agreement=0.9,
        max_abs_error=1.0,
        perplexity_from=20.0,
        perplexity_to=20.0,
        perplexity_change=PerplexityChange(0.0, 0.005, 255),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def moved(ratio: float, error: float) -> dict[str, Any]:
    return {
        "perplexity_to": 20.0 * ratio,
        "perplexity_change": PerplexityChange(math.log(ratio), error, 255),
    }


def judge(
    from_: str,
    to: str,
    *,
    path: str = "decode",
    linear: LinearQuantization = "8da4w",
    floor: dict[str, float] | None = None,
    paths: dict[str, PathFloor] | None = None,
    bound: LearnedBound | None = None,
    same_code: bool = False,
    **changes: Any,
) -> dict[str, GateResult]:
    floors = {"decode": 0.02, "prefill": 0.01} if floor is None else floor
    context = RuleContext(linear, floors, same_code, paths or {}, bound)
    return {
        gate.metric: gate
        for gate in judge_pair(Pair(from_, to, path, comparison(**changes)), context)
    }


@pytest.mark.parametrize(("kl", "passed"), [(0.0299, True), (0.0301, False)])
def test_a_device_stays_within_one_and_a_half_noise_floors(kl: float, passed: bool) -> None:
    assert judge("host_pte", "device_pte", kl_mean=kl)["kl_mean"].passed is passed


@pytest.mark.parametrize(
    ("to", "kl", "passed"),
    [
        ("device_pte", 0.14, True),
        ("device_pte", 0.4, None),
        ("device_pte", 0.7, False),
        ("host_pte", 0.29, True),
        ("host_pte", 0.9, None),
        ("host_pte", 1.3, False),
    ],
)
def test_an_artifact_that_rounding_moves_far_passes_as_a_calm_one_does(
    to: str, kl: float, passed: bool | None
) -> None:
    from_ = "host_pte" if to == "device_pte" else "eager_quantised"
    gate = judge(from_, to, floor={"decode": 0.4}, kl_mean=kl)["kl_mean"]
    assert gate.passed is passed
    assert ("the order of sums alone" in gate.reason) is (passed is None)


@pytest.mark.parametrize(
    ("linear", "least"),
    [("none", KL_NOTHING), ("4w", KL_NOTHING), ("8da4w", KL_NOTHING_DYNAMIC)],
)
def test_a_floor_of_nothing_has_a_least_bound(linear: LinearQuantization, least: float) -> None:
    gates = judge("host_pte", "device_pte", linear=linear, floor={"decode": 1e-12}, kl_mean=least)
    assert gates["kl_mean"].threshold == least
    assert gates["kl_mean"].passed is True


def test_an_unknown_floor_decides_nothing() -> None:
    gate = judge("host_pte", "device_pte", floor={})["kl_mean"]
    assert gate.passed is None
    assert gate.reason


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (0.05, "avx code differs by 0.05, alike: it is the choice of code"),
        (0.002, "avx code differs by 0.002 at most: it is this hardware"),
        (None, ""),
    ],
)
def test_a_control_tells_code_from_hardware(control: float | None, words: str) -> None:
    """A device that differs too much, beside other code on the host's own CPU."""
    controls = [] if control is None else [IsaControl("avx", (("decode", control),))]
    context = RuleContext("8da4w", {"decode": 0.02}, same_code=False, controls=controls)
    pair = Pair("host_pte", "device_pte", "decode", comparison(kl_mean=0.06))
    (gate,) = (one for one in judge_pair(pair, context) if one.metric == "kl_mean")
    assert gate.passed is False
    assert words in gate.reason
    assert bool(gate.reason) is bool(words)


def test_the_same_code_is_judged_by_bits_alone() -> None:
    gates = judge("host_pte", "device_pte", same_code=True, kl_mean=1e-12)
    assert set(gates) == {"bit_equal"}
    assert gates["bit_equal"].passed is False
    assert judge("host_pte", "device_pte", same_code=True, bit_equal=True)["bit_equal"].passed


@pytest.mark.parametrize(
    ("ratio", "error", "passed"),
    [
        (1.009, 0.0001, True),
        (1.02, 0.0001, False),
        (0.98, 0.0001, False),
        # Two percent, but 256 tokens tell it to 1.6 % only.
        (1.02, 0.008, None),
        (1.10, 0.008, False),
    ],
)
def test_perplexity_fails_only_where_the_tokens_can_tell(
    ratio: float, error: float, passed: bool
) -> None:
    gate = judge("host_pte", "device_pte", **moved(ratio, error))["perplexity_change"]
    assert gate.passed is passed
    assert bool(gate.reason) == (abs(ratio - 1) > 0.01)


def test_perplexity_may_move_as_far_as_rounding_moves_it_here() -> None:
    floor = {"decode": PathFloor("decode", 1.0, 0.0, 0.0, 1.0, 0.01)}
    within = judge("host_pte", "device_pte", paths=floor, **moved(1.025, 0.001))
    assert within["perplexity_change"].passed is True
    beyond = judge("host_pte", "device_pte", paths=floor, **moved(1.04, 0.001))
    assert beyond["perplexity_change"].passed is False


def test_a_better_perplexity_of_the_quantised_model_is_no_failure() -> None:
    gates = judge("eager_fp32", "eager_quantised", **moved(0.7, 0.001))
    assert gates["perplexity_change"].passed is True
    gates = judge("eager_quantised", "host_pte", **moved(0.7, 0.001))
    assert gates["perplexity_change"].passed is False


@pytest.mark.parametrize("linear", list(QUANTISATION))
def test_every_quantisation_has_bounds_that_a_tenfold_perplexity_breaks(
    linear: LinearQuantization,
) -> None:
    broken = judge("eager_fp32", "eager_quantised", linear=linear, kl_mean=2.3, **moved(10.0, 0.1))
    assert {gate.passed for gate in broken.values()} == {False}
    healthy = judge("eager_fp32", "eager_quantised", linear=linear, kl_mean=0.015)
    assert {gate.passed for gate in healthy.values()} == {True}


@pytest.mark.parametrize(
    ("linear", "kl", "ratio"),
    [
        ("none", 0.0001, 1.001),
        ("int8", 0.0185, 1.041),
        ("4w", 0.517, 1.401),
        ("8da4w", 0.539, 1.46),
    ],
)
def test_what_a_healthy_135m_model_loses_is_allowed(
    linear: LinearQuantization, kl: float, ratio: float
) -> None:
    """Measured on SmolLM2-135M, 256 tokens of the built-in text."""
    gates = judge("eager_fp32", "eager_quantised", linear=linear, kl_mean=kl, **moved(ratio, 0.001))
    assert {gate.passed for gate in gates.values()} == {True}
    # The model without its rotary embedding.
    gates = judge("eager_fp32", "eager_quantised", linear=linear, kl_mean=2.73, **moved(13.8, 0.1))
    assert {gate.passed for gate in gates.values()} == {False}


def test_the_host_bound_grows_with_the_noise_floor() -> None:
    assert judge("eager_quantised", "host_pte")["kl_mean"].threshold == pytest.approx(0.1)
    noisy = judge("eager_quantised", "host_pte", floor={"decode": 0.05})
    assert noisy["kl_mean"].threshold == pytest.approx(0.15)
    fp32 = judge("eager_quantised", "host_pte", linear="none", floor={})
    assert fp32["kl_mean"].threshold == pytest.approx(1e-3)


def test_few_rows_have_a_wider_bound_the_decode_floor_and_no_perplexity() -> None:
    few = judge(
        "host_pte",
        "device_pte",
        path="prefill",
        rows=9,
        perplexity_change=PerplexityChange(0.5, 0.1, 8),
    )
    assert set(few) == {"kl_mean"}
    # Its own floor of 0.01 comes from nine rows; the decode path's 0.02 counts.
    assert few["kl_mean"].threshold == pytest.approx(1.5 * 0.02 * (1 + 3.0 / 3))


@pytest.mark.parametrize(("side", "stage"), [("from", "host_pte"), ("to", "device_pte")])
def test_not_a_number_names_its_stage(side: str, stage: str) -> None:
    gates = judge("host_pte", "device_pte", non_finite=NonFinite(side, 17), kl_mean=None)
    assert set(gates) == {"finite"}
    assert gates["finite"].passed is False
    assert gates["finite"].reason == f"NaN or infinity in the logits of {stage} at position 17"


def test_pairs_from_end_to_end_are_shown_not_judged() -> None:
    assert judge("eager_fp32", "device_pte", kl_mean=9.0) == {}


def test_the_source_rule() -> None:
    def passed(error: float | None, *, ids_equal: bool | None = None) -> list[bool | None]:
        source = SourceCheck("anchor", 48, ids_equal, error)
        return [gate.passed for gate in judge_source(source)]

    assert passed(1e-4) == [True]
    assert passed(0.5) == [False]
    assert passed(None) == [False]
    assert passed(1e-4, ids_equal=True) == [True, True]
    assert passed(1e-4, ids_equal=False) == [True, False]
    assert judge_source(SourceCheck(reason="nobody to ask")) == []
    # A small model's logits are small, and so is what a wrong reading changes in them.
    small = SourceCheck("anchor", 48, None, 6.5e-4, largest=7.1)
    (gate,) = judge_source(small)
    assert gate.passed is False
    assert gate.threshold == pytest.approx(1.42e-4)
    assert judge_source(replace(small, largest=40.0))[0].passed is True
    assert judge_source(replace(small, largest=900.0))[0].threshold == pytest.approx(1e-3)
    (broken,) = judge_source(SourceCheck("anchor", 48, None, math.nan))
    assert (broken.passed, broken.value) == (False, None)


FLOOR = {"decode": PathFloor("decode", 2.0, 0.002, 0.004, 3.0, 0.01)}
RELATION = Relation(slope=0.001, r_squared=0.001, column_ratio=3.0, column=7)
DIFFERING_PAIRS = pytest.mark.parametrize(
    ("from_", "to"), [("eager_quantised", "host_pte"), ("host_pte", "device_pte")]
)


@DIFFERING_PAIRS
def test_rounding_passes_for_rounding(from_: str, to: str) -> None:
    gates = judge(from_, to, paths=FLOOR, relation=RELATION, max_abs_error=3.0)
    assert {"direction", "vocabulary", "max_abs_error"} <= set(gates)
    assert all(gate.passed for gate in gates.values())


@DIFFERING_PAIRS
@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        ("direction", {"relation": replace(RELATION, slope=-0.1, r_squared=0.5)}),
        ("vocabulary", {"relation": replace(RELATION, column_ratio=60.0)}),
        ("max_abs_error", {"max_abs_error": 9.0}),
    ],
)
def test_a_bug_is_told_from_rounding(
    gate: str, changes: dict[str, Any], from_: str, to: str
) -> None:
    gates = judge(from_, to, paths=FLOOR, **{"relation": RELATION, **changes})
    assert [name for name, found in gates.items() if found.passed is False] == [gate]
    assert f"{from_} -> {to}" in gates[gate].text


@pytest.mark.parametrize(("error", "passed"), [(8e-6, True), (1e-4, True), (2e-4, False)])
def test_the_last_bit_of_a_token_id_is_no_bug(error: float, passed: bool) -> None:
    alone = replace(RELATION, column_ratio=292.0)
    gates = judge("host_pte", "device_pte", paths=FLOOR, relation=alone, max_abs_error=error)
    assert gates["vocabulary"].passed is passed
    assert gates["vocabulary"].reason


def test_a_slope_that_explains_nothing_is_no_direction() -> None:
    weak = replace(RELATION, slope=-0.1, r_squared=0.001)
    assert judge("host_pte", "device_pte", paths=FLOOR, relation=weak)["direction"].passed


def test_without_a_floor_or_a_difference_there_is_nothing_to_tell() -> None:
    assert "direction" not in judge("host_pte", "device_pte", relation=RELATION)
    assert "direction" not in judge("host_pte", "device_pte", paths=FLOOR)


@pytest.mark.parametrize(
    ("kl", "same_text", "passed"),
    [(0.22, True, True), (0.25, True, False), (0.38, False, True), (0.42, False, False)],
)
def test_a_learned_bound_replaces_the_common_one(kl: float, same_text: bool, passed: bool) -> None:
    learned = LearnedBound(0.2, 0.1, same_text)
    gates = judge("eager_fp32", "eager_quantised", bound=learned, kl_mean=kl)
    assert gates["kl_mean"].passed is passed
    assert "healthy export" in gates["kl_mean"].text
    common = judge("eager_fp32", "eager_quantised", kl_mean=kl)
    assert common["kl_mean"].passed is True
    assert "not learned" in common["kl_mean"].text


def test_a_learned_perplexity_is_held() -> None:
    learned = LearnedBound(0.2, 0.1, same_text=True)
    far = judge("eager_fp32", "eager_quantised", bound=learned, **moved(1.3, 0.01))
    assert far["perplexity_change"].passed is False
    near = judge("eager_fp32", "eager_quantised", bound=learned, **moved(1.12, 0.01))
    assert near["perplexity_change"].passed is True


@pytest.mark.parametrize(("own", "passed"), [(30.02, True), (30.1, False), (35.0, False)])
def test_the_source_has_our_perplexity(own: float, passed: bool) -> None:
    source = SourceCheck("anchor", 256, True, 1e-5, perplexity=30.0, own_perplexity=own)
    gates = {gate.metric: gate for gate in judge_source(source)}
    assert gates["perplexity_change"].passed is passed


def test_a_floor_without_flips_leaves_room_for_some() -> None:
    still = {"decode": PathFloor("decode", 4e-6, 1e-8, 1e-8, 1.6, 1e-7)}
    flipped = Relation(slope=0.01, r_squared=0.3, column_ratio=5.0, column=7)
    changes: dict[str, Any] = {"relation": flipped, "max_abs_error": 0.3, "kl_mean": 5e-5}
    few = judge("host_pte", "device_pte", floor={"decode": 1e-12}, paths=still, **changes)
    assert all(gate.passed for gate in few.values())
    static = judge(
        "host_pte", "device_pte", linear="4w", floor={"decode": 1e-12}, paths=still, **changes
    )
    failed = {name for name, gate in static.items() if gate.passed is False}
    assert failed == {"kl_mean", "direction", "vocabulary", "max_abs_error"}
