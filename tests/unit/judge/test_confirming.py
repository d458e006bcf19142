"""The second sitting of a night: what it proves, clears, and must not hide."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from farm.core.result import CellResult, Decision, GateResult
from farm.core.rules.family import second_sittings
from farm.reports import html
from farm.reports import json as json_report
from tests.unit.judge.nights import compared, night, side_by_side, verdicts
from tests.unit.reports.builders import report


def suspicious_pair() -> CellResult:
    """A loss that one sitting of few pairs suspects and can't prove for a whole night."""
    return side_by_side(0.93, pairs=5, noise=0.02, seed=4)


def test_what_is_suspected_is_no_regression_without_proof() -> None:
    result = compared(suspicious_pair(), night(3), 0.02)
    assert verdicts(result)["tg32"] in ("INSUFFICIENT", "NOISY")
    assert "suspected" in result.reason
    assert second_sittings([result]) == (result.cell_id,)
    assert second_sittings([compared(side_by_side(1.0), night(3), 0.04)]) == ()


def test_a_confirming_sitting_proves_what_one_could_not() -> None:
    second = side_by_side(0.93, pairs=12, noise=0.02, seed=9)
    result = compared(suspicious_pair(), night(3), 0.02, second=second)
    assert verdicts(result)["tg32"] == "REGRESSED"
    assert "confirmed by a second sitting" in result.reason
    assert result.outcome == "failed"


def test_a_confirming_sitting_clears_what_was_luck() -> None:
    second = side_by_side(1.0, pairs=12, noise=0.002, seed=5)
    result = compared(suspicious_pair(), night(3), 0.02, second=second)
    assert verdicts(result)["tg32"] in ("PASS", "SLOWER")
    assert result.outcome == "passed"
    assert result.second is not None
    assert {row.metric for row in result.second.performance} >= {"tg32", "pp64"}
    assert any(m.metric == "tg32" for m in result.second.metrics)


def test_one_look_alone_fails_nothing() -> None:
    result = compared(side_by_side(0.5), night(3), 0.02)
    assert verdicts(result)["tg32"] == "INSUFFICIENT"
    assert (result.outcome, result.speed_decision) == ("inconclusive", "undecided")
    assert "no second sitting: there was none" in result.reason


def test_a_second_sitting_that_could_not_be_made_is_named() -> None:
    first = side_by_side(0.5)
    gone = replace(
        first,
        outcome="errored",
        reason="no device is left",
        performance=(),
        flags=("device_missing",),
        attempts=(),
    )
    result = compared(first, night(3), 0.02, second=gone)
    assert verdicts(result)["tg32"] == "INSUFFICIENT"
    assert "no second sitting: no device is left" in result.reason
    assert result.alarms == (
        f"{first.cell_id}: its second sitting could not be made: no device is left",
    )


def test_a_device_that_left_before_its_second_sitting_is_missing() -> None:
    clean = replace(side_by_side(1.0), outcome="passed")
    assert report((clean,)).exit_code == 0
    gone = replace(clean, outcome="errored", flags=("device_missing",), performance=())
    kept = compared(clean, night(3), 0.04, second=gone)
    assert kept.outcome == "passed"
    assert report((kept,)).exit_code == 3


def test_both_sittings_are_shown() -> None:
    second = side_by_side(0.93, pairs=12, noise=0.02, seed=9)
    night_report = report((compared(suspicious_pair(), night(3), 0.02, second=second),))
    assert "The second sitting alone: passed" in html.render(night_report)
    data = json.loads(str(json_report.render(night_report)))
    assert data["results"][0]["second"]["metrics"]


def test_a_second_sitting_of_other_bytes_confirms_nothing() -> None:
    first = side_by_side(0.5)
    other = replace(first, artifact=replace(first.artifact, sha256="f" * 64))
    result = compared(first, night(3), 0.02, second=other)
    assert verdicts(result)["tg32"] == "INSUFFICIENT"
    assert "measured another artifact" in result.reason


def test_a_second_sitting_that_computes_wrong_fails_the_cell() -> None:
    first = side_by_side(0.93, pairs=5, noise=0.02, seed=4)
    wrong = replace(
        side_by_side(0.93, pairs=12), outcome="failed", correctness_decision="failed", reason="KL 3"
    )
    result = compared(first, night(3), 0.02, second=wrong)
    assert (result.outcome, result.correctness_decision) == ("failed", "failed")
    assert result.reason == "second sitting: KL 3"


@pytest.mark.parametrize("decision", ["passed", "failed", "undecided"])
def test_what_fails_in_a_second_sitting_is_kept_beside_the_first_ones_gates(
    decision: Decision,
) -> None:
    first = side_by_side(0.93, pairs=5, noise=0.02, seed=4)
    assert first.correctness is not None
    open_, known, new = (
        GateResult("cosine_min", ">=", 1.0, None, None),
        GateResult("text", "==", 1.0, 0.0, False),
        GateResult("canary", "<=", 1.0, 9.0, False),
    )
    mine, other = (replace(first.correctness, gates=gates) for gates in ((open_, known), (new,)))
    first = replace(first, correctness=mine, correctness_decision=decision)
    wrong = replace(first, correctness=other, correctness_decision="failed", outcome="failed")
    result = compared(first, night(3), 0.02, second=wrong)
    assert result.correctness is not None
    assert result.correctness.gates == (open_, known, new)
