"""Waivers: known failures that are allowed until a date, shown, and failing once expired."""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Sequence
from dataclasses import replace

from farm.core.result import CellResult, GateResult
from farm.core.spec import Waiver


def failing_gates(result: CellResult) -> tuple[GateResult, ...]:
    """Return every gate that judged the cell wrong or slow."""
    gates: list[GateResult] = []
    if result.correctness is not None:
        gates += result.correctness.gates
    gates += result.memory.gates
    for measured in result.performance:
        gates += measured.gates
    if result.baseline is not None and result.baseline.verdict == "REGRESSED":
        gates.append(GateResult("regress", "<=", None, None, False))
    return tuple(gate for gate in gates if gate.passed is False)


def apply_waivers(
    result: CellResult, waivers: Sequence[Waiver], today: datetime.date
) -> CellResult:
    """Waive a failed cell when every failing gate has a waiver that still holds."""
    if result.outcome != "failed":
        return result
    reasons = []
    for gate in failing_gates(result):
        waiver = next(
            (
                w
                for w in waivers
                if w.gate == gate.metric and fnmatch.fnmatchcase(result.cell_id, w.cells)
            ),
            None,
        )
        if waiver is None:
            return result
        if today > datetime.date.fromisoformat(waiver.until):
            expired = f"the waiver of {gate.metric} expired on {waiver.until}: {waiver.reason}"
            return replace(result, reason=f"{result.reason}; {expired}")
        issue = f" ({waiver.issue})" if waiver.issue else ""
        reasons.append(f"{gate.metric} until {waiver.until}: {waiver.reason}{issue}")
    if not reasons:
        return result
    return replace(result, waived=True, reason=f"waived: {'; '.join(reasons)}")
