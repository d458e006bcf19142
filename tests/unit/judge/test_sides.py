"""A green without a judgement: correctness and speed are decided apart."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from farm.core.flow.outcomes import judged
from farm.core.judgement import Judgement
from farm.core.report import cell_alarms
from farm.core.result import PerformanceReport
from farm.core.rules.verdict import speed_required
from farm.core.rules.waivers import apply_waivers
from farm.core.runner import RunnerSpec
from farm.core.spec import Gate, Waiver
from farm.judge.cell import judge_cell
from farm.judge.gates import performance_gates
from farm.judge.logits import Logits
from farm.reports import junit
from tests.unit.judge.builders import TEXT, Case, check_launch, facts, judge, launch, telemetry
from tests.unit.reports.builders import cell as cell_of
from tests.unit.reports.builders import judged_cell, report


def capped() -> Case:
    """Every rate is invalid: the ceiling of the clock fell during each launch."""
    slow = telemetry(1).clocks[0]
    said = tuple(
        telemetry(n, clocks=(replace(slow, lowest_khz=slow.highest_khz // 2),)) for n in (1, 2, 3)
    )
    return Case(telemetry=said)


def decisions(judgement: Judgement) -> tuple[str, str, str]:
    return judgement.outcome, judgement.correctness_decision, judgement.speed_decision


def test_a_healthy_cell_without_a_gate_on_speed_says_so() -> None:
    assert decisions(judge(Case())) == ("passed", "passed", "not gated")


@pytest.mark.parametrize(("bound", "outcome", "speed"), [(5, "passed", "passed"),
                                                         (5000, "failed", "failed")])  # fmt: skip
def test_a_gate_on_speed_is_decided_apart(bound: float, outcome: str, speed: str) -> None:
    found = judge(Case(gates=(Gate("decode_tok_s", ">=", bound),)))
    assert decisions(found) == (outcome, "passed", speed)


def test_a_cell_all_of_whose_speeds_are_invalid_never_passes_a_gate_on_speed() -> None:
    case = capped()
    case.gates = (Gate("memory_bytes", "<=", 1e12), Gate("ttft_s", "<=", 1e6))
    found = judge(case)
    assert {p.trust for p in found.performance if p.unit == "tok/s"} == {"invalid"}
    assert decisions(found) == ("inconclusive", "passed", "undecided")


def test_without_a_gate_on_speed_it_says_so_and_is_an_alarm() -> None:
    found = judge(capped())
    assert decisions(found) == ("passed", "passed", "not gated")
    assert "speed_untrusted" in found.flags
    cell = judged_cell(capped(), "local", gates=())
    assert report((cell,)).verdict_line.endswith("speed not gated -> exit 0")
    assert cell_alarms((cell,)) == (f"{cell.cell_id}: no speed can be trusted: clock_cap",)
    healthy = judged_cell(Case(), "local", gates=())
    assert speed_required(healthy) == healthy


def test_a_run_that_requires_speeds_is_no_green_in_any_report() -> None:
    cell = speed_required(judged_cell(capped(), "local", gates=()))
    assert cell.reason == "no speed can be trusted: clock_cap"
    found = report((cell,))
    assert found.exit_code == 3
    assert found.verdict_line == (
        "0/1 judged: 0 passed, 0 failed; 1 not judged (1 invalid); speed 0/1 decided -> exit 3"
    )
    cases = list(ET.fromstring(junit.render(found)).iter("testcase"))
    skipped, run = cases
    assert skipped.find("skipped") is not None
    assert run.find("error") is not None, "build servers take what is skipped for green"


def test_speed_of_an_emulated_device_is_nobodys_question() -> None:
    found = judge(Case(device_facts=facts(emulated=True)))
    assert decisions(found) == ("passed", "passed", "not gated")


def test_a_gate_on_the_speed_of_an_emulated_device_is_not_decided() -> None:
    case = Case(device_facts=facts(emulated=True), gates=(Gate("decode_tok_s", ">=", 1),))
    assert decisions(judge(case)) == ("inconclusive", "passed", "undecided")


def test_speed_alone_is_no_pass() -> None:
    """Without logits, text or canary nobody looked at correctness."""
    case = Case(gates=(Gate("decode_tok_s", ">=", 5),))
    case.launches = (launch(1), launch(2), launch(3))
    task = case.task()
    found = judge_cell(replace(task, host=None), {}, generated_text=None)
    assert decisions(found) == ("inconclusive", "undecided", "passed")


def without_device(case: Case) -> dict[str, Mapping[str, Logits]]:
    """Logits of every stage but the device's."""
    return {stage: found for stage, found in case.logits().items() if stage != "device_pte"}


def test_a_healthy_host_says_nothing_of_a_device_that_gave_nothing() -> None:
    case = Case(gates=(Gate("decode_tok_s", ">=", 5),))
    found = judge_cell(case.task(), without_device(case), generated_text=None)
    assert decisions(found) == ("inconclusive", "undecided", "passed")
    assert found.reason == "device_pte: logits: it gave none of decode, prefill (and 1 more)"
    assert found.correctness is not None
    (nothing,) = [gate for gate in found.correctness.gates if gate.metric == "model"]
    assert nothing.reason == "nothing to judge the model by: no logits, no text"


def test_a_waived_canary_is_no_judgement_of_the_model() -> None:
    case = Case()
    found = judge_cell(case.task(), without_device(case), generated_text=None, canary=0.5)
    assert decisions(found) == ("failed", "failed", "not gated")
    cell = judged(cell_of("local"), case.task().device, case.task(), found, ())
    known = Waiver("*", "canary", "2027-01-01", "a known kernel")
    waived = apply_waivers(cell, (known,), datetime.date(2026, 12, 1))
    assert (waived.outcome, waived.waived) == ("inconclusive", False)
    assert waived.reason.endswith("a known kernel; logits and model undecided")
    right = judge_cell(case.task(), case.logits(), generated_text=TEXT, canary=0.5)
    cell = judged(cell_of("local"), case.task().device, case.task(), right, ())
    assert apply_waivers(cell, (known,), datetime.date(2026, 12, 1)).waived


def test_two_artifacts_under_one_name_are_no_green() -> None:
    """A run that was gone on with, and exported anew with other bytes in between."""
    one, other = judged_cell(Case(), "local", gates=()), judged_cell(Case(), "s24", gates=())
    assert report((one, other)).exit_code == 0
    other = replace(other, artifact=replace(other.artifact, sha256="f" * 64))
    found = report((one, other))
    assert found.exit_code == 3
    why = "smollm2-135m/xnnpack-8da4w is 2 artifacts in one run: it was exported anew"
    assert why in found.verdict_line
    assert why in found.alarms[-1]


def test_a_pass_that_the_device_gave_no_logits_of_is_named() -> None:
    assert not {flag for flag in judge(Case()).flags if flag.endswith("_not_judged")}
    one = check_launch()
    case = Case(launches=(replace(one, logits=one.logits[:1]), launch(1)))
    found = judge(case)
    assert "prefill_not_judged" in found.flags
    ours = replace(case.task(), runner=RunnerSpec("theirs", "command", logits="out.f32"))
    found = judge_cell(ours, case.logits(), generated_text=TEXT)
    assert "prefill_not_judged" in found.flags
    assert found.outcome == "passed", "a program of others gives one pass"


def test_a_gate_on_what_no_launch_gave_leaves_speed_undecided() -> None:
    found = judge(Case(gates=(Gate("tg999", ">=", 5),)))
    assert decisions(found) == ("inconclusive", "passed", "undecided")


def test_a_gate_on_the_load_is_not_met_by_loads_of_another_regime() -> None:
    case = Case(gates=(Gate("load_s", "<=", 9.0),))
    assert decisions(judge(case)) == ("passed", "passed", "passed")
    cold = (replace(launch(n), regime="cold") for n in (1, 2, 3))
    case.launches = (check_launch(), *cold)
    assert decisions(judge(case)) == ("inconclusive", "passed", "undecided")


def test_a_wrong_model_that_nobody_timed_has_failed() -> None:
    case = Case(launches=(check_launch(),), gates=(Gate("decode_tok_s", ">=", 5),))
    case.device = case.fp32[::-1].copy()
    assert decisions(judge(case)) == ("failed", "failed", "undecided")


def rate(trust: str, low: float, high: float) -> PerformanceReport:
    base = next(p for p in judge(Case()).performance if p.metric == "tg32")
    return replace(base, median=(low + high) / 2, ci95=(low, high), trust=trust)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trust", "low", "high", "passed"),
    [
        ("ok", 11, 13, True),
        ("ok", 7, 9, False),
        ("unverified", 7, 9, False),
        ("noisy", 11, 13, True),
        ("noisy", 9, 13, None),
        ("noisy", 7, 9, None),
        ("invalid", 11, 13, None),
        ("invalid", 7, 9, None),
    ],
)
def test_what_a_gate_makes_of_trust(trust: str, low: float, high: float, passed: object) -> None:
    (found,) = performance_gates([Gate("decode_tok_s", ">=", 10)], rate(trust, low, high))
    assert found.passed is passed


def test_a_noisy_number_without_an_interval_passes_nothing() -> None:
    noisy = replace(rate("noisy", 11, 13), ci95=None)
    (found,) = performance_gates([Gate("decode_tok_s", ">=", 10)], noisy)
    assert found.passed is None
