from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from farm.core.comparison import BaselineReport, BaselineVerdict, MetricComparison
from farm.core.flow import outcomes
from farm.core.result import (
    CellResult,
    CorrectnessReport,
    GateResult,
    MemoryReport,
    Outcome,
    PerformanceReport,
)
from farm.core.rules.waivers import apply_waivers, failing_gates, waiver_alarms
from farm.core.spec import Waiver
from tests.unit.core import builders as b

TODAY = datetime.date(2026, 6, 15)


def waiver(gate: str = "regress", until: str = "2026-07-01", **changes: object) -> Waiver:
    base = Waiver("m1/*", gate, until, "a known thing", "#12")
    return replace(base, **changes)  # type: ignore[arg-type]


def performance(metric: str, unit: str = "tok/s", gates: tuple[GateResult, ...] = ()) -> object:
    return PerformanceReport(metric, unit, "warm", 1, "", "", 1.0, None, None, (), gates, "ok")


def cell(outcome: Outcome = "failed", reason: str = "slow", **losses: float) -> CellResult:
    """A cell of m1/r1 on device a, which has lost these shares against its baseline."""
    plan = b.plan(b.run_spec(), b.device("a"))
    base = outcomes.skipped(plan.cells[0], b.device("a"), "x", reason)
    metrics = tuple(
        MetricComparison(
            name, "REGRESSED" if loss else "PASS", 1 - loss if name == "tg64" else 1 + loss, None
        )
        for name, loss in losses.items()
    )
    rates = tuple(performance(name, "tok/s" if name == "tg64" else "s") for name in losses)
    verdict = "REGRESSED" if any(losses.values()) else "PASS"
    report = BaselineReport("old", verdict, None, None, metrics) if losses else None  # type: ignore[arg-type]
    return replace(
        base,
        outcome=outcome,
        flags=(),
        baseline=report,
        performance=rates,  # type: ignore[arg-type]
        correctness_decision="passed",
    )


def applied(result: CellResult, *waivers: Waiver) -> CellResult:
    return apply_waivers(result, waivers, TODAY)


def test_a_known_failure_is_waived_and_shown() -> None:
    found = applied(cell(tg64=0.1), waiver())
    assert found.waived
    assert found.outcome == "failed"
    assert found.reason == "waived: regress of tg64 until 2026-07-01: a known thing (#12)"


def wrong(*stages: str) -> CellResult:
    """A cell whose KL is too large at these stages."""
    gates = tuple(
        GateResult("kl_mean", "<=", 0.1, 0.5, False, f"before -> {stage} (decode): the bound")
        for stage in stages
    )
    return replace(
        cell(reason="wrong"),
        correctness=CorrectnessReport((), None, None, gates),
        correctness_decision="failed",
    )


def test_what_is_known_of_a_recipe_hides_no_wrong_device() -> None:
    both = wrong("eager_quantised", "device_pte")
    found = applied(both, waiver("kl_mean"))
    assert not found.waived
    assert "names no stage" in found.reason
    assert not applied(both, waiver("kl_mean", stage="eager_quantised")).waived
    each = [waiver("kl_mean", stage=stage) for stage in ("eager_quantised", "device_pte")]
    found = applied(both, *each)
    assert found.waived
    assert "kl_mean at device_pte until" in found.reason


def test_a_waiver_of_one_stage_is_for_no_other() -> None:
    known = waiver("kl_mean", stage="eager_quantised")
    assert applied(wrong("eager_quantised"), known).waived
    assert not applied(wrong("device_pte"), known).waived
    assert applied(wrong("device_pte"), waiver("kl_mean")).waived, "of one stage, whichever"
    # The one for the stage counts, also where it no longer holds for what fails.
    assert not applied(wrong("eager_quantised"), replace(known, until="2026-01-01")).waived


@pytest.mark.parametrize("side", ["correctness_decision", "speed_decision"])
def test_a_waiver_judges_nothing_that_is_undecided(side: str) -> None:
    half = replace(cell(tg64=0.1), **{side: "undecided"})  # type: ignore[arg-type]
    found = applied(half, waiver())
    assert (found.outcome, found.waived) == ("inconclusive", False)
    assert found.reason.startswith("waived: regress of tg64 until 2026-07-01")
    assert found.reason.endswith(f"; {side.partition('_')[0]} undecided")
    assert waiver_alarms([found], [waiver()], TODAY) == (), "it was needed"


@pytest.mark.parametrize("verdict", ["INCOMPARABLE", "NOISY", "INSUFFICIENT"])
def test_a_waived_metric_hides_no_undecided_one_beside_it(verdict: BaselineVerdict) -> None:
    slow = replace(cell(tg64=0.1), speed_decision="failed")
    assert slow.baseline is not None
    metrics = (*slow.baseline.metrics, MetricComparison("pp128", verdict, None, None))
    found = applied(replace(slow, baseline=replace(slow.baseline, metrics=metrics)), waiver())
    assert (found.outcome, found.waived) == ("inconclusive", False)
    assert found.reason.endswith("; pp128 undecided")


def test_a_waived_failure_hides_no_gate_that_could_not_be_judged() -> None:
    gate = GateResult("peak_rss_bytes", "<=", 5.0, None, None)
    memory = replace(cell(tg64=0.1), memory=MemoryReport(None, gates=(gate,)))
    assert applied(memory, waiver()).reason.endswith("; peak_rss_bytes undecided")
    speed = GateResult("decode_tok_s", ">=", 5.0, None, None)
    rows = (performance("tg64@d512", gates=(speed,)),)
    half = replace(cell(tg64=0.1), performance=rows)  # type: ignore[arg-type]
    assert applied(half, waiver()).outcome == "inconclusive"


def test_only_failures_are_waived() -> None:
    inconclusive = cell("inconclusive", tg64=0.0)
    assert applied(inconclusive, waiver()) is inconclusive


@pytest.mark.parametrize("until", ["2026-06-15", "2026-06-16"])
def test_a_waiver_holds_until_its_last_day(until: str) -> None:
    assert applied(cell(tg64=0.1), waiver(until=until)).waived


def test_an_expired_waiver_fails_the_cell_and_says_so() -> None:
    found = applied(cell(tg64=0.1), waiver(until="2026-06-14"))
    assert not found.waived
    assert found.reason == "slow; the waiver of regress expired on 2026-06-14: a known thing"


@pytest.mark.parametrize("order", [1, -1])
def test_an_expired_entry_hides_no_renewal(order: int) -> None:
    both = [waiver(until="2026-01-01"), waiver(reason="renewed")][::order]
    found = applied(cell(tg64=0.1), *both)
    assert found.waived
    assert "renewed" in found.reason


@pytest.mark.parametrize("order", [1, -1])
def test_the_narrowest_waiver_that_holds_counts(order: int) -> None:
    every = waiver(cells="*", reason="everything")
    mine = waiver(cells="m1/r1:*:a", reason="this device")
    bounded = waiver(cells="*", metric="tg64", reason="this metric")
    assert "this device" in applied(cell(tg64=0.1), *[every, mine][::order]).reason
    assert "this metric" in applied(cell(tg64=0.1), *[bounded, mine][::order]).reason


@pytest.mark.parametrize("order", [1, -1])
def test_a_wide_waiver_accepts_no_loss_that_a_narrow_one_forbids(order: int) -> None:
    every = waiver(cells="*", reason="everything")
    bounded = waiver(cells="m1/r1:*:a", max_loss=0.05, reason="this device")
    found = applied(cell(tg64=0.1), *[every, bounded][::order])
    assert not found.waived
    assert "allows 5.0%, the loss of tg64 is 10.0%" in found.reason
    assert applied(cell(tg64=0.04), *[every, bounded][::order]).waived
    wider = waiver(cells="m1/r1:*:a", max_loss=0.2, reason="as narrow")
    assert applied(cell(tg64=0.1), *[wider, bounded][::order]).waived


@pytest.mark.parametrize(
    ("metric", "waived"), [("tg64", True), ("decode_tok_s", True), ("", True), ("pp128", False)]
)
def test_a_waiver_of_one_metric_waives_no_other(metric: str, waived: bool) -> None:
    assert applied(cell(tg64=0.1), waiver(metric=metric)).waived is waived


def test_every_failing_metric_needs_its_waiver() -> None:
    both = cell(tg64=0.1, ttft=0.2)
    assert not applied(both, waiver(metric="tg64")).waived
    assert applied(both, waiver(metric="tg64"), waiver(metric="ttft_s")).waived


@pytest.mark.parametrize(("loss", "waived"), [(0.04, True), (0.06, False)])
@pytest.mark.parametrize("metric", ["tg64", "ttft"])
def test_a_loss_larger_than_allowed_fails(metric: str, loss: float, waived: bool) -> None:
    slow = cell(tg64=loss) if metric == "tg64" else cell(ttft=loss)
    found = applied(slow, waiver(max_loss=0.05))
    assert found.waived is waived
    if not waived:
        assert f"allows 5.0%, the loss of {metric} is 6.0%" in found.reason


def test_a_bound_on_the_loss_covers_no_failure_without_one() -> None:
    memory = MemoryReport(9, gates=(GateResult("peak_rss_bytes", "<=", 5.0, 9.0, False),))
    result = replace(cell(tg64=0.0), memory=memory)
    assert not applied(result, waiver("peak_rss_bytes", max_loss=0.5)).waived
    assert applied(result, waiver("peak_rss_bytes")).waived


def test_a_gate_on_one_metric_is_waived_by_its_metric() -> None:
    gate = GateResult("decode_tok_s", ">=", 5.0, 4.0, False)
    rows = (performance("tg64@d512", gates=(gate,)),)
    result = replace(cell(), performance=rows)  # type: ignore[arg-type]
    assert applied(result, waiver("decode_tok_s", metric="tg64@d512")).waived
    assert not applied(result, waiver("decode_tok_s", metric="tg64")).waived
    assert [g.metric for g in failing_gates(result)] == ["decode_tok_s"]


def alarms(results: list[CellResult], *waivers: Waiver) -> tuple[str, ...]:
    return waiver_alarms(results, waivers, TODAY)


def test_a_waiver_that_is_needed_is_no_alarm() -> None:
    assert alarms([cell(tg64=0.1)], waiver()) == ()


def test_an_expired_waiver_is_an_alarm() -> None:
    (found,) = alarms([cell(tg64=0.1)], waiver(until="2026-06-14"))
    assert found.startswith("waiver of regress on m1/* expired on 2026-06-14")


def test_what_passes_again_is_told() -> None:
    (found,) = alarms([cell("passed", tg64=0.0)], waiver())
    assert found == (
        "waiver of regress on m1/* (until 2026-07-01) is idle: 1 cell passes again; remove it"
    )


def test_a_cell_that_fails_by_another_gate_passes_this_one_again() -> None:
    gate = GateResult("perplexity", "<=", 5.0, 9.0, False)
    wrong = replace(cell(tg64=0.0), memory=MemoryReport(1, gates=(gate,)))
    assert "passes again" in alarms([wrong], waiver())[0]


def test_a_waiver_whose_cells_were_not_judged_is_idle() -> None:
    (found,) = alarms([cell("skipped")], waiver())
    assert found.endswith("is idle: no cell of it was judged")
