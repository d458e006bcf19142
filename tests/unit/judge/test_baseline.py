from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from farm.core.result import CellResult
from farm.core.rules.window_turns import IN_TURN
from farm.judge.night import Against, compare_run
from tests.unit.judge.builders import Case, facts
from tests.unit.judge.nights import compared, night, side_by_side, verdicts
from tests.unit.reports.builders import results


@pytest.mark.parametrize("speed", [0.3, 1.0, 3.0])
def test_speeds_of_two_nights_are_shown_and_never_judged(speed: float) -> None:
    result = compared(night(1, speed=speed), night(2), unpaired="the artifact is gone")
    found = verdicts(result)
    assert {found[name] for name in ("pp64", "tg32", "ttft", "load")} == {"INSUFFICIENT"}
    assert (found["peak_rss_bytes"], found["perplexity"]) == ("PASS", "PASS")
    assert (result.outcome, result.speed_decision) == ("inconclusive", "undecided")
    assert result.baseline is not None
    assert result.baseline.method == "sittings"
    (tg32,) = (m for m in result.baseline.metrics if m.metric == "tg32")
    assert tg32.ratio == pytest.approx(speed, rel=0.05)
    assert "never judged" in tg32.reason
    assert result.reason.endswith("not measured side by side: the artifact is gone")
    assert "unpaired" in result.flags
    assert result.conditions["unpaired"] == "the artifact is gone"


def test_a_wrong_night_regresses_by_its_perplexity_alone() -> None:
    case = Case()
    result = compared(night(1, quantised=case.fp32 * np.float32(0.5)), night(2), 0.02)
    assert (result.outcome, result.correctness_decision) == ("failed", "failed")


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
    assert verdicts(compared(newer, night(2)))["perplexity"] == "PASS"


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
    result = compared(new, night(2))
    assert result.baseline is not None
    assert result.baseline.verdict != "INCOMPARABLE"


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
    assert "insufficient" not in result.flags
    assert result.speed_decision == "undecided"


def test_a_failed_cell_stays_failed_and_cells_that_never_ran_stay_as_they_are() -> None:
    by_outcome = {r.outcome: r for r in results()}
    failed = compared(by_outcome["failed"], None)
    assert failed.outcome == "failed"
    assert failed.reason == by_outcome["failed"].reason
    for outcome in ("errored", "skipped"):
        assert compared(by_outcome[outcome], night(2)) is by_outcome[outcome]


def test_an_inconclusive_cell_that_regressed_has_failed() -> None:
    slow = side_by_side(0.4)
    new = replace(slow, outcome="inconclusive", reason="a gate was undecided")
    result = compared(new, night(2), second=slow)
    assert result.outcome == "failed"
    assert "a gate was undecided" in result.reason


# -- side by side


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.0, "PASS"), (0.9, "REGRESSED"), (1.1, "IMPROVED")]
)
def test_pairs_tell_ten_percent_although_the_device_loses_half(ratio: float, verdict: str) -> None:
    first, second = (side_by_side(ratio, drift=0.06, seed=seed) for seed in (1, 2))
    result = compared(first, night(3), regress=0.04, second=second)
    assert result.baseline is not None
    assert result.baseline.method == "paired"
    found = verdicts(result)
    assert (found["pp64"], found["tg32"]) == (verdict, verdict)
    assert found["perplexity"] == "PASS"
    assert result.outcome == ("failed" if verdict == "REGRESSED" else "passed")


def test_a_number_that_the_baseline_had_and_no_arm_gives_any_more_is_no_pass() -> None:
    cell = side_by_side(1.0, pairs=8)
    assert compared(cell, cell).outcome == "passed"
    shorter = tuple(
        replace(
            p, samples=(), median=None, reason="needs 96 tokens of context, the artifact has 64"
        )
        if p.metric == "tg32"
        else p
        for p in cell.performance
    )
    result = compared(replace(cell, performance=shorter), cell)
    assert (verdicts(result)["tg32"], result.outcome) == ("INCOMPARABLE", "inconclusive")
    assert "no longer measured: needs 96 tokens" in result.reason


@pytest.mark.parametrize("lost", ["tg32", "ttft", "peak_rss_bytes", "perplexity"])
def test_a_number_that_vanished_from_one_arm_is_no_pass(lost: str) -> None:
    old = side_by_side(1.0, pairs=8)
    peaks = old.memory.launches_bytes
    old = replace(old, memory=replace(old.memory, baseline_launches_bytes=peaks))
    assert compared(old, old).outcome == "passed"
    rows = tuple(p for p in old.performance if p.metric != lost)
    new = replace(old, performance=rows)
    if lost == "peak_rss_bytes":
        new = replace(old, memory=replace(old.memory, launches_bytes=()))
    if lost == "perplexity":
        assert old.correctness is not None
        new = replace(old, correctness=replace(old.correctness, stages=()))
    result = compared(new, old)
    assert (verdicts(result)[lost], result.outcome) == ("INCOMPARABLE", "inconclusive")
    assert f"{lost}: no longer measured" in result.reason


@pytest.mark.parametrize(("accepted", "alarms"), [(0.15, 0), (0.4, 1)])
def test_a_wide_tolerance_of_auto_is_an_alarm(accepted: float, alarms: int) -> None:
    cell = side_by_side(0.8, pairs=8)
    speeds = {cell.cell_id: {"pp64": 0.05, "tg32": accepted, "ttft": 0.05, "load": 0.05}}
    against = Against("old", {cell.cell_id: cell}, 0.02, {}, {}, speeds)
    (result,) = compare_run([cell], against)
    found = [a for a in result.alarms if "accepts a loss of tg32 40%: its launches" in a]
    assert len(found) == alarms


def test_pairs_that_scatter_are_undecided_and_say_what_they_would_have_found() -> None:
    result = compared(side_by_side(0.99, noise=0.1), night(3), regress=0.02)
    assert verdicts(result)["tg32"] == "NOISY"
    assert "would have been found" in result.reason
    assert (result.outcome, result.speed_decision) == ("inconclusive", "undecided")


def test_two_pairs_judge_nothing_however_alike_they_are() -> None:
    result = compared(side_by_side(0.97, pairs=2, noise=1e-6), night(3), regress=0.02)
    assert verdicts(result)["tg32"] == "INSUFFICIENT"
    assert "2 launches of each side judge nothing; 4 are the least" in result.reason
    assert result.outcome == "inconclusive"


def test_a_small_loss_that_is_proven_passes_and_is_shown() -> None:
    result = compared(side_by_side(0.97, pairs=12, noise=0.002), night(3), regress=0.1)
    assert verdicts(result)["tg32"] == "SLOWER"
    assert (result.outcome, result.speed_decision) == ("passed", "passed")
    assert result.baseline is not None
    assert result.baseline.verdict == "SLOWER"
    assert "slower" in result.flags


@pytest.mark.parametrize("metric", ["tg32", "ttft"])
def test_verdicts_never_get_better_as_the_cell_gets_slower(metric: str) -> None:
    """From far faster to far slower, in this order."""
    order = ["IMPROVED", "PASS", "SLOWER", "INSUFFICIENT", "REGRESSED"]
    base = side_by_side(1.0, pairs=10, noise=0.01)
    old = next(p for p in base.performance if p.metric == metric)
    found = []
    for slower in np.geomspace(0.5, 2.0, 81):
        factor = 1 / slower if old.unit == "tok/s" else slower
        samples = tuple(
            replace(s, value=s.value * float(factor)) if s.arm == "candidate" else s
            for s in old.samples
        )
        cell = edited(base, metric, samples=samples)
        found.append(order.index(verdicts(compared(cell, base, 0.1, second=cell))[metric]))
    assert found == sorted(found)
    assert set(found) == {0, 1, 2, 3, 4}
    assert all(b - a <= 1 for a, b in itertools.pairwise(found))


def test_the_smallest_loss_that_would_be_found_holds_what_is_accepted() -> None:
    quiet, loud = (compared(side_by_side(1.0, noise=n), night(3), 0.1) for n in (0.002, 0.02))
    found = []
    for result in (quiet, loud):
        assert result.baseline is not None
        (one,) = (m for m in result.baseline.metrics if m.metric == "tg32")
        assert one.smallest_loss is not None
        found.append(one.smallest_loss)
        row = next(p for p in result.performance if (p.metric, p.regime) == ("tg32", "warm"))
        assert row.min_detectable_change == one.smallest_loss
    assert 0.1 < found[0] < found[1] < 1


def test_what_slows_both_arms_alike_hides_no_loss() -> None:
    slow = side_by_side(0.7)
    rows = tuple(
        replace(p, trust="noisy", guards={**p.guards, "load": "flagged"}) for p in slow.performance
    )
    busy = replace(slow, performance=rows)
    result = compared(busy, night(3), 0.04, second=busy)
    assert verdicts(result)["tg32"] == "REGRESSED"
    assert result.outcome == "failed"


@pytest.mark.parametrize(
    ("guards", "conditions", "verdict"),
    [
        (("hidden_cap",), {}, "REGRESSED"),
        (("hidden_cap", "clock_cap"), {}, "REGRESSED"),
        # Launch by launch a cap may come and go between the arms.
        (("hidden_cap",), {"turns": "launch by launch: no room for both"}, "INSUFFICIENT"),
        # A quota may be one arm's own; unread, nobody knows.
        (("hidden_cap",), {"cgroup_throttled": "3"}, "INSUFFICIENT"),
        (("hidden_cap",), {"cgroup_throttled": ""}, "INSUFFICIENT"),
        (("hidden_cap", "garbage_text"), {}, "INSUFFICIENT"),
        (("hot_start",), {}, "INSUFFICIENT"),
        ((), {}, "INSUFFICIENT"),
    ],
)
@pytest.mark.parametrize("ratio", [0.7, 1.0])
def test_a_cap_that_windows_in_turn_share_spoils_numbers_and_not_their_ratio(
    guards: tuple[str, ...], conditions: dict[str, str], verdict: str, ratio: float
) -> None:
    cell = side_by_side(ratio)
    fired = dict.fromkeys(guards, "flagged")
    rows = tuple(
        replace(row, trust="invalid", guards={**row.guards, **fired}) for row in cell.performance
    )
    about = {"turns": IN_TURN, "cgroup_throttled": "0", **conditions}
    capped = replace(cell, performance=rows, conditions={**cell.conditions, **about})
    found = verdicts(compared(capped, night(3), 0.04, second=capped))
    assert found["tg32"] == (verdict if ratio < 1 or verdict == "INSUFFICIENT" else "PASS")


# -- the whole night


def test_the_more_a_night_compares_the_more_a_loss_needs() -> None:
    """What is proven on its own isn't among sixty cells."""
    lossy = side_by_side(0.94, pairs=5, noise=0.006, seed=2)
    again = side_by_side(0.94, pairs=5, noise=0.014, seed=4)
    alone = compared(lossy, night(3), 0.02, second=again)
    clean = side_by_side(1.0)
    others = [replace(clean, cell_id=f"cell{n}") for n in range(60)]
    old = night(3)
    cells = {cell.cell_id: old for cell in [lossy, *others]}
    against = Against("old", cells, 0.02, {}, {})
    first, *_ = compare_run([lossy, *others], against, {lossy.cell_id: again})
    assert verdicts(alone)["tg32"] == "REGRESSED"
    assert verdicts(first)["tg32"] != "REGRESSED"


def test_another_os_build_is_comparable_side_by_side_and_an_alarm() -> None:
    old = night(3, device_facts=facts(os_build="b0"))
    result = compared(side_by_side(1.0), old, 0.04)
    assert verdicts(result)["tg32"] == "PASS"
    assert result.alarms == ("device local: OS build is b1, was b0",)
    between = compared(night(1), old, 0.04)
    assert between.baseline is not None
    assert between.baseline.verdict == "INCOMPARABLE"


def test_invalid_numbers_are_not_judged_side_by_side() -> None:
    result = side_by_side(0.5)
    rows = tuple(replace(row, trust="invalid") for row in result.performance)
    found = verdicts(compared(replace(result, performance=rows), night(3), 0.04))
    assert {found[name] for name in ("pp64", "tg32", "ttft", "load")} == {"INSUFFICIENT"}
