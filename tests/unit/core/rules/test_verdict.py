from __future__ import annotations

import dataclasses

import pytest

from farm.core.errors import ConnectError
from farm.core.flow import outcomes
from farm.core.result import CellResult, Outcome, Summary
from farm.core.rules.verdict import exit_code, last_line, summarise
from tests.unit.core import builders as b


def cell_result(outcome: Outcome, *flags: str, waived: bool = False) -> CellResult:
    plan = b.plan(b.run_spec(), b.device("a"))
    base = outcomes.errored(plan.cells[0], b.device("a"), ConnectError("x"), "device_failed")
    return dataclasses.replace(base, outcome=outcome, flags=flags, waived=waived)


@pytest.mark.parametrize(
    ("results", "missing", "require", "code"),
    [
        ([cell_result("passed")], False, 0.0, 0),
        ([cell_result("passed"), cell_result("failed")], False, 0.0, 1),
        ([cell_result("failed"), cell_result("errored")], True, 0.0, 1),
        ([cell_result("passed"), cell_result("errored")], False, 0.0, 3),
        ([cell_result("passed"), cell_result("skipped")], True, 0.0, 3),
        ([cell_result("passed"), cell_result("skipped")], False, 0.0, 0),
        ([cell_result("passed"), cell_result("skipped")], False, 0.95, 3),
        ([cell_result("inconclusive")], False, 0.0, 3),
        ([cell_result("failed", waived=True)], False, 0.0, 0),
    ],
)
def test_truth_table(results: list[CellResult], missing: bool, require: float, code: int) -> None:
    summary = summarise(results)
    got = exit_code(summary, planned=len(results), require_judged=require, device_missing=missing)
    assert got == code


def test_interrupt_wins() -> None:
    summary = Summary(0, 0, 0, 0, 0, 0, 0)
    assert (
        exit_code(summary, planned=1, require_judged=0, device_missing=False, interrupted=True)
        == 130
    )


def test_last_line_reads_like_the_contract() -> None:
    results = [
        *[cell_result("passed")] * 54,
        *[cell_result("failed")] * 2,
        cell_result("failed", waived=True),
        *[cell_result("skipped", "device_missing")] * 2,
        cell_result("inconclusive", "noisy"),
    ]
    assert last_line(results, summarise(results), 1) == (
        "57/60 judged: 54 passed, 2 failed, 1 waived; "
        "3 not judged (2 device missing, 1 noisy) -> exit 1"
    )
