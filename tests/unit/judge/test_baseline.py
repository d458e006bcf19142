from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from farm.core.result import CellResult
from farm.core.runtime import Arm
from farm.judge.baseline import compare_with_baseline
from tests.unit.judge.builders import Case, check_launch, facts, launch
from tests.unit.reports.builders import android, judged_cell, results


def night(
    seed: int = 0,
    *,
    speed: float = 1.0,
    load_s: float = 0.25,
    noise: float = 0.01,
    **changes: object,
) -> CellResult:
    """A cell of one night; `speed` divides every timed window."""
    random = np.random.default_rng(seed)
    launches = tuple(
        launch(
            n + 10 * seed,
            prefill_s=0.2 / speed * float(np.exp(noise * random.standard_normal())),
            decode_s=0.4 / speed * float(np.exp(noise * random.standard_normal())),
            load_s=load_s * float(np.exp(noise * random.standard_normal())),
        )
        for n in (1, 2, 3)
    )
    case = Case(launches=(check_launch(), *launches), device_facts=facts(os_build="b1"))
    for name, value in changes.items():
        setattr(case, name, value)
    return judged_cell(case, "local")


def verdicts(result: CellResult) -> dict[str, str]:
    assert result.baseline is not None
    return {m.metric: m.verdict for m in result.baseline.metrics}


def compared(new: CellResult, old: CellResult | None, regress: float = 0.3) -> CellResult:
    return compare_with_baseline(new, old, run_id="old", regress=regress)


def test_a_clean_second_night_passes_at_thirty_percent() -> None:
    result = compared(night(1), night(2))
    assert result.outcome == "passed"
    assert verdicts(result) == {
        "pp64": "PASS", "tg32": "PASS", "ttft": "PASS", "load": "PASS",
        "peak_rss_bytes": "PASS", "perplexity": "PASS",
    }  # fmt: skip


def test_clean_nights_with_five_percent_of_noise_mostly_pass_and_never_regress() -> None:
    passed = 0
    for seed in range(20):
        result = compared(night(2 * seed + 1, noise=0.05), night(2 * seed + 2, noise=0.05))
        assert "REGRESSED" not in verdicts(result).values()
        passed += result.outcome == "passed"
    assert passed >= 16


def test_two_percent_between_nights_is_not_provable() -> None:
    result = compared(night(1), night(2), regress=0.02)
    assert result.outcome == "inconclusive"
    assert "insufficient" in result.flags
    assert result.baseline is not None
    assert result.baseline.verdict == "INSUFFICIENT"
    assert "these launches can't tell" in result.reason


def test_half_the_speed_has_regressed() -> None:
    result = compared(night(1, speed=0.5), night(2))
    assert result.outcome == "failed"
    assert "regressed" in result.flags
    found = verdicts(result)
    assert (found["pp64"], found["tg32"], found["ttft"]) == ("REGRESSED",) * 3
    assert found["load"] == "PASS"
    assert result.reason.startswith("REGRESSED against old: pp64: 0.")


def test_twice_the_speed_has_improved() -> None:
    result = compared(night(1, speed=2.0), night(2))
    assert result.outcome == "passed"
    assert {verdicts(result)[m] for m in ("pp64", "tg32", "ttft")} == {"IMPROVED"}
    assert result.baseline is not None
    assert result.baseline.verdict == "PASS"


def test_times_that_nobody_notices_are_no_regression() -> None:
    result = compared(night(1, load_s=0.02), night(2, load_s=0.01))
    assert verdicts(result)["load"] == "PASS"
    result = compared(night(1, load_s=2.0), night(2, load_s=1.0))
    assert verdicts(result)["load"] == "REGRESSED"


def test_scatter_is_noisy_and_not_a_pass() -> None:
    wild = (check_launch(), *(launch(n, decode_s=0.3 * n) for n in (1, 2, 3)))
    result = compared(night(1, launches=wild), night(2))
    assert verdicts(result)["tg32"] == "NOISY"
    assert result.outcome == "inconclusive"
    assert "noisy" in result.flags


def test_one_launch_is_insufficient() -> None:
    result = compared(night(1, launches=(check_launch(), launch(1))), night(2))
    assert verdicts(result)["tg32"] == "INSUFFICIENT"
    assert result.outcome == "inconclusive"


def test_phones_drift_so_much_that_ten_percent_is_never_judged() -> None:
    new, old = judged_cell(android(), "s24"), judged_cell(android(), "s24")
    assert verdicts(compared(new, old, 0.1))["tg32"] == "INSUFFICIENT"
    assert verdicts(compared(new, old, 0.3))["tg32"] == "PASS"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"identity": "another"}, "device is another"),
        ({"os_build": "b2"}, "OS build is b2, was b1"),
        ({"os": "Debian GNU/Linux 13"}, "OS is"),
    ],
)
def test_another_device_or_system_is_incomparable(change: dict[str, str], named: str) -> None:
    new = night(1)
    new = replace(new, device=replace(new.device, **change))  # type: ignore[arg-type]
    result = compared(new, night(2))
    assert result.baseline is not None
    assert result.baseline.verdict == "INCOMPARABLE"
    assert named in result.reason
    assert result.outcome == "inconclusive"


def test_another_runner_is_incomparable_but_a_new_version_of_it_is_not() -> None:
    new = night(1)
    other = replace(new, runner=replace(new.runner, name="llama_main"))
    assert compared(other, night(2)).outcome == "inconclusive"
    newer = replace(new, runner=replace(new.runner, version="9.9", sha256="9" * 64))
    assert compared(newer, night(2)).outcome == "passed"


@pytest.mark.parametrize(("now", "then", "named"), [
    ((), ("llama::custom_sdpa.out",), "is none, was llama::custom_sdpa.out"),
    (("llama::custom_sdpa.out", "xnnpack::qd8_f32_qb4w"), ("llama::custom_sdpa.out",), "qb4w, was"),
    (("llama::custom_sdpa.out",), None, "and what wasn't recorded"),
])  # fmt: skip
def test_other_code_of_ours_in_the_timed_path_is_incomparable_in_one_lease_too(
    now: tuple[str, ...], then: tuple[str, ...] | None, named: str
) -> None:
    """Ours is on for some versions and CPUs only: without it a toolchain would look slower."""
    old = night(3)
    old = replace(
        old,
        runner=replace(old.runner, own_code=then),
        conditions={**old.conditions, "own_kernels": "llama::custom_sdpa.out"},
    )
    for new in (night(1), side_by_side(0.7)):
        result = compared(replace(new, runner=replace(new.runner, own_code=now)), old)
        assert result.baseline is not None
        assert (result.baseline.verdict, result.outcome) == ("INCOMPARABLE", "inconclusive")
        assert named in result.reason
        if then is not None:
            same = compared(replace(new, runner=replace(new.runner, own_code=then)), old)
            assert same.baseline is not None
            assert same.baseline.verdict != "INCOMPARABLE"


def test_an_older_row_of_a_runner_without_code_of_ours_stays_comparable() -> None:
    new = night(1)
    new = replace(new, runner=replace(new.runner, own_code=()))
    assert compared(new, night(2)).outcome == "passed"


def edited(result: CellResult, which: str, **changes: object) -> CellResult:
    performance = tuple(
        replace(p, **changes) if p.metric == which else p  # type: ignore[arg-type]
        for p in result.performance
    )
    return replace(result, performance=performance)


@pytest.mark.parametrize("change", [{"threads": 4}, {"definition": "with tokenising"},
                                    {"affinity": "4-7"}])  # fmt: skip
def test_another_way_of_measuring_is_incomparable(change: dict[str, object]) -> None:
    result = compared(edited(night(1), "tg32", **change), night(2))
    assert verdicts(result)["tg32"] == "INCOMPARABLE"
    assert result.baseline is not None
    assert next(iter(change)) in result.baseline.reason


def test_another_workload_is_incomparable_both_ways() -> None:
    new = edited(night(1), "tg32", metric="tg128")
    found = verdicts(compared(new, night(2)))
    assert (found["tg128"], found["tg32"]) == ("INCOMPARABLE", "INCOMPARABLE")


def test_another_regime_is_never_compared() -> None:
    first_ever = edited(night(1), "load", regime="first_ever")
    assert verdicts(compared(first_ever, night(2))).get("load") != "PASS"


def test_invalid_numbers_are_insufficient() -> None:
    result = compared(edited(night(1), "tg32", trust="invalid"), night(2))
    assert verdicts(result)["tg32"] == "INSUFFICIENT"


def test_speed_of_an_emulated_device_is_left_out() -> None:
    emulated = facts(emulated=True, os_build="b1")
    result = compared(night(1, speed=0.1, device_facts=emulated), night(2, device_facts=emulated))
    assert verdicts(result) == {"peak_rss_bytes": "PASS", "perplexity": "PASS"}
    assert result.baseline is not None
    assert result.baseline.verdict == "PASS"


def test_a_worse_perplexity_has_regressed_and_another_text_is_incomparable() -> None:
    case = Case()
    worse = case.fp32 * np.float32(0.5)
    new = night(1, quantised=worse)
    result = compared(new, night(2), regress=0.02)
    assert verdicts(result)["perplexity"] == "REGRESSED"
    other_text = night(1, fp32=case.fp32 * np.float32(0.9))
    assert verdicts(compared(other_text, night(2)))["perplexity"] == "INCOMPARABLE"


def test_memory_is_judged_by_its_launches() -> None:
    new = night(1)
    bigger = replace(new, memory=replace(new.memory, launches_bytes=(200_000_000,) * 3))
    assert verdicts(compared(bigger, night(2)))["peak_rss_bytes"] == "REGRESSED"


def test_without_a_baseline_nothing_is_proved() -> None:
    result = compared(night(1), None)
    assert (result.outcome, "no_baseline" in result.flags) == ("inconclusive", True)


def test_a_failed_cell_stays_failed_and_cells_that_never_ran_stay_as_they_are() -> None:
    by_outcome = {r.outcome: r for r in results()}
    failed = compared(by_outcome["failed"], None)
    assert failed.outcome == "failed"
    assert failed.reason == by_outcome["failed"].reason
    for outcome in ("errored", "skipped"):
        assert compared(by_outcome[outcome], night(2)) is by_outcome[outcome]


def test_an_inconclusive_cell_that_regressed_has_failed() -> None:
    new = replace(night(1, speed=0.4), outcome="inconclusive", reason="a gate was undecided")
    result = compared(new, night(2))
    assert result.outcome == "failed"
    assert "a gate was undecided" in result.reason


@pytest.mark.parametrize("metric", ["tg32", "ttft"])
def test_verdicts_never_get_better_as_the_cell_gets_slower(metric: str) -> None:
    """From far faster to far slower: IMPROVED, PASS, undecided, REGRESSED, in this order."""
    order = ["IMPROVED", "PASS", "INSUFFICIENT", "REGRESSED"]
    base = night(1)
    old = next(p for p in base.performance if p.metric == metric)
    found = []
    for slower in np.geomspace(0.3, 3.0, 41):
        factor = 1 / slower if old.unit == "tok/s" else slower
        samples = tuple(replace(s, value=s.value * float(factor)) for s in old.samples)
        cell = edited(base, metric, samples=samples)
        found.append(order.index(verdicts(compared(cell, base))[metric]))
    assert found == sorted(found)
    assert set(found) == {0, 1, 2, 3}
    assert all(b - a <= 1 for a, b in itertools.pairwise(found))


# -- side by side


def side_by_side(
    ratio: float, *, pairs: int = 6, noise: float = 0.005, drift: float = 0.0, seed: int = 1
) -> CellResult:
    """A cell whose baseline ran beside it, A B B A, on a device that drifts."""
    random = np.random.default_rng(seed)
    launches = []
    for n in range(2 * pairs):
        arm: Arm = "candidate" if n % 4 in (0, 3) else "baseline"
        slow = float(np.exp(drift * n + noise * random.standard_normal()))
        own = slow / (ratio if arm == "candidate" else 1.0)
        made = launch(n + 1, prefill_s=0.2 * own, decode_s=0.4 * own, load_s=0.25 * slow)
        samples = tuple(replace(sample, arm=arm) for sample in made.samples)
        launches.append(replace(made, samples=samples, arm=arm))
    case = Case(launches=(check_launch(), *launches), device_facts=facts(os_build="b1"))
    return judged_cell(case, "local")


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.0, "PASS"), (0.9, "REGRESSED"), (1.1, "IMPROVED")]
)
def test_pairs_tell_ten_percent_although_the_device_loses_half(ratio: float, verdict: str) -> None:
    result = compared(side_by_side(ratio, drift=0.06), night(3), regress=0.04)
    assert result.baseline is not None
    assert result.baseline.method == "paired"
    found = verdicts(result)
    assert (found["pp64"], found["tg32"]) == (verdict, verdict)
    assert found["perplexity"] == "PASS"
    assert result.outcome == ("failed" if verdict == "REGRESSED" else "passed")


def test_pairs_that_scatter_are_undecided_and_say_what_they_could_have_seen() -> None:
    result = compared(side_by_side(0.99, noise=0.1), night(3), regress=0.02)
    assert verdicts(result)["tg32"] == "NOISY"
    assert "these launches can't tell" in result.reason
    assert result.outcome == "inconclusive"


def test_another_os_build_is_comparable_side_by_side_but_not_between_nights() -> None:
    old = night(3, device_facts=facts(os_build="b0"))
    assert verdicts(compared(side_by_side(1.0), old, 0.04))["tg32"] == "PASS"
    between = compared(night(1), old, 0.04)
    assert between.baseline is not None
    assert between.baseline.verdict == "INCOMPARABLE"


def test_invalid_numbers_are_not_judged_side_by_side() -> None:
    result = side_by_side(0.5)
    rows = tuple(replace(row, trust="invalid") for row in result.performance)
    found = verdicts(compared(replace(result, performance=rows), night(3), 0.04))
    assert {found[name] for name in ("pp64", "tg32", "ttft", "load")} == {"INSUFFICIENT"}


def test_the_same_bytes_pass_without_a_ratio() -> None:
    same = replace(night(1, speed=0.5), flags=("same_as_baseline",))
    result = compared(same, night(3), regress=0.02)
    assert result.baseline is not None
    assert (result.baseline.verdict, result.baseline.ratio) == ("PASS", None)
    assert result.baseline.method == "identity"
    assert "byte for byte" in result.baseline.reason
    assert result.outcome == "passed"


def test_without_the_baselines_artifact_the_nights_are_compared_and_it_is_said() -> None:
    result = compare_with_baseline(
        night(1), night(2), run_id="old", regress=0.02, unpaired="the artifact is gone"
    )
    assert "unpaired" in result.flags
    assert result.conditions["unpaired"] == "the artifact is gone"
    assert "not measured side by side: the artifact is gone" in result.reason
    assert result.baseline is not None
    assert result.baseline.method == "sittings"
