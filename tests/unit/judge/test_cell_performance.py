"""Judging a cell: its numbers, and whether they can be trusted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farm.core.runtime import LaunchResult
from farm.core.spec import Gate, Workload
from farm.core.telemetry import WindowEnergy
from farm.judge.cell import judge_cell
from tests.unit.judge.builders import (
    TEXT,
    Case,
    check_launch,
    judge,
    launch,
    metric,
    telemetry,
)


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


def test_a_number_beside_other_programs_passes_gates_but_fails_none() -> None:
    busy = tuple(telemetry(number, others=1.0) for number in (1, 2, 3))
    gates = (Gate("decode_tok_s", ">=", 5), Gate("prefill_tok_s", ">=", 1e6))
    judgement = judge(Case(telemetry=busy, gates=gates))
    assert metric(judgement, "tg32").gates[0].passed is True
    assert metric(judgement, "pp64").gates[0].passed is None
    assert judgement.outcome == "inconclusive"
    assert "other programs used 1.0 cores" in judgement.conditions["guard_load"]


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
    # A gate on the class is decided by what fits; one on that very number by nothing.
    for gate, outcome in (("prefill_tok_s", "passed"), ("pp64@d500", "inconclusive")):
        gated = replace(task, spec=replace(task.spec, gates=(Gate(gate, ">=", 1.0),)))
        assert judge_cell(gated, Case().logits(), generated_text=TEXT).outcome == outcome


def test_a_measure_without_samples_is_null_with_a_flag() -> None:
    judgement = judge(Case(launches=(check_launch(),), gates=(Gate("decode_tok_s", ">=", 5),)))
    report = metric(judgement, "tg32")
    assert (report.median, report.ci95, report.trust) == (None, None, "invalid")
    assert "not_measured" in judgement.flags
    assert judgement.outcome == "inconclusive"
