"""Decoding without a pause: a cap is a finding, somebody else's load is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farm.core.judgement import Judgement
from farm.core.runtime import LaunchResult, Sample, SustainedRun
from farm.core.spec import Gate
from farm.core.telemetry import ClockRange, WindowEnergy
from farm.judge.cell import judge_cell
from tests.unit.judge.builders import TEXT, Case, facts, launch, metric, telemetry

FLOOR = Gate("steady_tok_s", ">=", 8.0, None, ">= 8")


def decoding(*levels: tuple[float, float]) -> LaunchResult:
    """A launch of windows of 32 tokens: (seconds, tok/s) in turn, after one to warm up."""
    samples, t = [Sample("tg32", 9, 0, True, 32, 9.0, t_s=0.0)], 9.0
    for seconds, rate in levels:
        end = t + seconds
        while t < end:
            samples.append(Sample("tg32", 9, len(samples), False, 32, 32 / rate, t_s=t))
            t += 32 / rate
    return replace(launch(9), samples=tuple(samples))


def judged(
    run: SustainedRun | None, *gates: Gate, case: Case | None = None, seconds: float = 600.0
) -> Judgement:
    case = case or Case()
    case.gates = gates
    task = case.task()
    workload = replace(task.spec.workload, sustained_s=seconds)
    spec = replace(task.spec, workload=workload)
    task = replace(task, spec=spec, run=replace(task.run, sustained=run))
    return judge_cell(task, case.logits(), generated_text=TEXT)


CAPPED = telemetry(9, clocks=(ClockRange("policy0", 2_400_000, 1_500_000),))


def test_a_cap_after_two_minutes_is_told_and_spoils_no_number() -> None:
    found = judged(SustainedRun(decoding((120, 11.0), (480, 3.5)), CAPPED))
    seen = found.sustained
    assert seen is not None
    assert (seen.first_tok_s, seen.steady_tok_s) == pytest.approx((11.0, 3.5))
    assert seen.throttled_after_s == pytest.approx(120, abs=12)
    assert seen.settled
    assert seen.guards["clock_cap"] == "flagged: policy0 from 2400 to 1500 MHz"
    assert (seen.j_per_token, seen.energy_source) == (None, "unsupported")
    assert found.outcome == "passed"
    assert "clock_cap" not in found.flags
    steady = metric(found, "steady")
    assert steady.median == pytest.approx(3.5)
    assert steady.trust == "ok"
    assert metric(found, "tg32").trust == "ok"


def test_gates_stand_on_either_rate() -> None:
    run = SustainedRun(decoding((120, 11.0), (480, 3.5)), CAPPED)
    first = Gate("first_minute_tok_s", ">=", 8.0, None, ">= 8")
    assert judged(run, first).outcome == "passed"
    slow = judged(run, first, FLOOR)
    assert (slow.outcome, slow.speed_decision) == ("failed", "failed")
    assert "steady_tok_s 3.5" in slow.reason


def test_joules_per_token_where_something_gauges_them() -> None:
    energy = (WindowEnergy("tg32", 640.0, 3200, 290.0),)
    said = telemetry(9, energy=energy, energy_source="battery")
    seen = judged(SustainedRun(decoding((600, 11.0)), said)).sustained
    assert seen is not None
    assert (seen.j_per_token, seen.energy_source) == (0.2, "battery")
    assert seen.throttled_after_s is None


def test_other_programs_make_it_noisy_and_fail_no_gate() -> None:
    busy = telemetry(9, others=1.5)
    found = judged(SustainedRun(decoding((600, 4.0)), busy), FLOOR)
    assert metric(found, "steady").trust == "noisy"
    assert found.outcome == "inconclusive"


@pytest.mark.parametrize("run", [None, SustainedRun(None, None, "no launch gave a rate of tg32")])
def test_what_was_not_made_is_named_and_decides_nothing(run: SustainedRun | None) -> None:
    found = judged(run, FLOOR)
    assert found.sustained is not None
    assert found.sustained.reason
    assert found.sustained.steady_tok_s is None
    assert found.outcome == "inconclusive"
    assert "this cell measures no steady_tok_s" in found.reason


def test_a_cell_that_does_not_ask_for_it_has_none() -> None:
    case = Case(device_facts=facts())
    assert judge_cell(case.task(), case.logits(), generated_text=TEXT).sustained is None
