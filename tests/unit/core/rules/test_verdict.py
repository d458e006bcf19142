"""The truth table of the CLI contract, enumerated."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import pytest

from farm.core.errors import ConnectError
from farm.core.flow import outcomes
from farm.core.result import CellResult, Decision, GateResult, Outcome, Summary
from farm.core.rules.verdict import (
    NIGHTLY_SHARE,
    decision,
    exit_code,
    gates_speed,
    last_line,
    outcome_of,
    summarise,
    with_speed_gate,
)
from farm.core.spec import Gate, Require
from tests.unit.core import builders as b

NOTHING = Require(Fraction(0), Fraction(0))
SIDES: tuple[Decision, ...] = ("passed", "failed", "undecided", "not gated")


def cell_result(
    outcome: Outcome, *flags: str, waived: bool = False, speed: Decision = "not gated"
) -> CellResult:
    plan = b.plan(b.run_spec(), b.device("a"))
    base = outcomes.errored(plan.cells[0], b.device("a"), ConnectError("x"), "device_failed")
    return dataclasses.replace(
        base, outcome=outcome, flags=flags, waived=waived, speed_decision=speed
    )


def code_of(results: list[CellResult], require: Require = NOTHING, *, missing: bool = False) -> int:
    return exit_code(
        summarise(results), planned=len(results), require=require, device_missing=missing
    )


@pytest.mark.parametrize(
    ("counts", "missing", "interrupted"),
    [
        (counts, missing, interrupted)
        for counts in itertools.product((0, 1), repeat=6)
        for missing in (False, True)
        for interrupted in (False, True)
    ],
)
def test_every_line_of_the_exit_codes(
    counts: tuple[int, ...], missing: bool, interrupted: bool
) -> None:
    passed, failed, waived, inconclusive, errored, skipped = counts
    results = [
        *[cell_result("passed")] * passed,
        *[cell_result("failed")] * failed,
        *[cell_result("failed", waived=True)] * waived,
        *[cell_result("inconclusive")] * inconclusive,
        *[cell_result("errored")] * errored,
        *[cell_result("skipped")] * skipped,
    ]
    got = exit_code(
        summarise(results),
        planned=len(results),
        require=NOTHING,
        device_missing=missing,
        interrupted=interrupted,
    )
    if interrupted:
        assert got == 130
    elif failed:
        assert got == 1
    elif errored or missing or not (passed or waived):
        assert got == 3
    else:
        assert got == 0


@pytest.mark.parametrize("sides", list(itertools.product(SIDES, repeat=3)))
def test_every_outcome_of_a_cell_that_ran(sides: tuple[Decision, Decision, Decision]) -> None:
    correctness, speed, memory = sides
    got = outcome_of(correctness, speed, memory)
    if "failed" in sides:
        assert got == "failed"
    elif correctness != "passed" or speed == "undecided" or memory == "undecided":
        assert got == "inconclusive"
    else:
        assert got == "passed"
    if got == "passed":
        assert correctness == "passed"
        assert speed in ("passed", "not gated")


def gate(passed: bool | None) -> GateResult:
    return GateResult("tg64", ">=", 1.0, 2.0, passed)


@pytest.mark.parametrize("found", list(itertools.product((True, False, None), repeat=2)))
def test_one_side_folds_its_gates(found: tuple[bool | None, bool | None]) -> None:
    expected = (
        "failed" if False in found else "undecided" if None in found else "passed"
    )  # fmt: skip
    assert decision([gate(passed) for passed in found]) == expected


def test_a_side_without_gates_is_not_gated() -> None:
    assert decision([]) == "not gated"


@pytest.mark.parametrize("percent", range(1, 100))
def test_coverage_is_exact_at_every_percentage(percent: int) -> None:
    cells = [cell_result("passed")] * percent + [cell_result("skipped")] * (100 - percent)
    assert code_of(cells, Require(Fraction(percent, 100))) == 0
    assert code_of(cells, Require(Fraction(percent, 100) + Fraction(1, 10**9))) == 3


@pytest.mark.parametrize(("decided", "code"), [(9, 0), (8, 3), (10, 0)])
def test_coverage_of_speed_counts_the_cells_with_a_gate_on_it(decided: int, code: int) -> None:
    cells = [
        *[cell_result("passed", speed="passed")] * decided,
        *[cell_result("inconclusive", speed="undecided")] * (10 - decided),
        *[cell_result("passed")] * 90,
    ]
    assert code_of(cells, Require(NIGHTLY_SHARE, NIGHTLY_SHARE)) == code


def test_a_run_without_gates_on_speed_needs_none_decided() -> None:
    assert code_of([cell_result("passed")], Require(NIGHTLY_SHARE, NIGHTLY_SHARE)) == 0


def test_last_line_reads_like_the_contract() -> None:
    results = [
        *[cell_result("passed", speed="passed")] * 51,
        *[cell_result("passed")] * 3,
        *[cell_result("failed", speed="undecided")] * 2,
        cell_result("failed", waived=True, speed="undecided"),
        *[cell_result("skipped", "device_missing", speed="undecided")] * 2,
        cell_result("inconclusive", "noisy", speed="undecided"),
    ]
    assert last_line(results, summarise(results), 1) == (
        "57/60 judged: 54 passed, 2 failed, 1 waived; "
        "3 not judged (2 device missing, 1 noisy); speed 51/57 decided -> exit 1"
    )


def test_the_last_line_counts_speeds_whose_guards_nobody_could_read() -> None:
    results = [
        cell_result("passed", "unverified", speed="passed"),
        cell_result("passed", speed="passed"),
        cell_result("passed", "unverified"),
        cell_result("inconclusive", "unverified", speed="undecided"),
    ]
    assert last_line(results, summarise(results), 0).endswith(
        "speed 2/3 decided (1 unverified) -> exit 0"
    )
    results.append(cell_result("passed", "speed_untrusted", "unverified", speed="passed"))
    assert last_line(results, summarise(results), 0).endswith(
        "speed 3/4 decided (1 unverified, 1 by ratio alone) -> exit 0"
    )


def test_the_last_line_says_that_nobody_asked_about_speed() -> None:
    results = [cell_result("passed")]
    assert last_line(results, summarise(results), 0) == (
        "1/1 judged: 1 passed, 0 failed; speed not gated -> exit 0"
    )


@pytest.mark.parametrize(
    ("outcome", "flags", "speed"),
    [
        ("errored", (), "undecided"),
        ("skipped", ("device_missing",), "undecided"),
        ("skipped", ("excluded",), "not gated"),
        ("passed", (), "not gated"),
    ],
)
def test_a_cell_that_never_ran_counts_as_undecided_where_speed_is_gated(
    outcome: Outcome, flags: tuple[str, ...], speed: str
) -> None:
    assert with_speed_gate(cell_result(outcome, *flags)).speed_decision == speed


@pytest.mark.parametrize(
    ("metric", "speed"),
    [("decode_tok_s", True), ("tg64@d512", True), ("load_s", True), ("perplexity", False),
     ("peak_rss_bytes", False)],
)  # fmt: skip
def test_which_gates_are_about_speed(metric: str, speed: bool) -> None:
    assert gates_speed([Gate(metric, ">=", 1.0)]) is speed


def test_counts_keep_correctness_and_speed_apart() -> None:
    found = summarise(
        [
            cell_result("passed", speed="passed"),
            cell_result("failed", speed="failed"),
            cell_result("inconclusive", speed="undecided"),
            cell_result("passed"),
        ]
    )
    assert found == Summary(3, 2, 1, 0, 1, 0, 0, speed_gated=3, speed_decided=2)
