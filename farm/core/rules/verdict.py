"""The truth table: outcomes of cells to counts, one exit code and the last line.

| exit | when                                                                        |
|------|-----------------------------------------------------------------------------|
| 130  | interrupted                                                                 |
| 1    | a cell failed and isn't waived                                              |
| 3    | else: a cell errored, too few cells judged or too few speeds decided, a     |
|      | named device missing, a request that no device meets, or nothing judged     |
| 0    | else                                                                        |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from farm.core.result import CellResult, Decision, GateResult, Outcome, Report, Summary
from farm.core.rules.gates import kind_of
from farm.core.spec import Gate, Require

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INCOMPLETE = 3
EXIT_INTERRUPTED = 130

#: Share that a nightly requires where its config says nothing, of cells and of speeds.
NIGHTLY_SHARE = Fraction(9, 10)


def decision(gates: Sequence[GateResult]) -> Decision:
    """Fold the gates of one side of a cell."""
    if any(gate.passed is False for gate in gates):
        return "failed"
    if any(gate.passed is None for gate in gates):
        return "undecided"
    return "passed" if gates else "not gated"


def outcome_of(correctness: Decision, speed: Decision, memory: Decision = "not gated") -> Outcome:
    """Fold the sides of a cell that ran: any failed, then any undecided.

    Correctness must have been looked at; speed and memory count where a gate stands on them.
    """
    sides = (correctness, speed, memory)
    if "failed" in sides:
        return "failed"
    if "undecided" in sides or correctness == "not gated":
        return "inconclusive"
    return "passed"


def gates_speed(gates: Sequence[Gate]) -> bool:
    """Whether any of a config's gates is about speed."""
    return any(kind_of(gate.metric) == "speed" for gate in gates)


def with_speed_gate(result: CellResult) -> CellResult:
    """Say of a cell that never ran that its speed is gated, and so undecided."""
    never_ran = result.outcome in ("errored", "skipped") and "excluded" not in result.flags
    return replace(result, speed_decision="undecided") if never_ran else result


def speed_required(result: CellResult) -> CellResult:
    """Hold a cell to a run that requires decided speeds: one without any that counts is open."""
    if "speed_untrusted" not in result.flags or result.speed_decision != "not gated":
        return result
    found = replace(result, speed_decision="undecided")
    if result.outcome != "passed":
        return found
    return replace(found, outcome="inconclusive", reason=result.conditions.get("speed", ""))


def summarise(results: Sequence[CellResult]) -> Summary:
    """Count cells by outcome, and their speeds apart. A waived failure is judged, not failed."""
    outcomes = Counter(result.outcome for result in results if not result.waived)
    waived = sum(result.waived for result in results)
    speeds = Counter(result.speed_decision for result in results)
    return Summary(
        judged=outcomes["passed"] + outcomes["failed"] + waived,
        passed=outcomes["passed"],
        failed=outcomes["failed"],
        waived=waived,
        inconclusive=outcomes["inconclusive"],
        errored=outcomes["errored"],
        skipped=outcomes["skipped"],
        speed_gated=len(results) - speeds["not gated"],
        speed_decided=speeds["passed"] + speeds["failed"],
    )


def exit_code(
    summary: Summary,
    *,
    planned: int,
    require: Require,
    device_missing: bool,
    interrupted: bool = False,
) -> int:
    """Return the one exit code of a run, by the truth table of the CLI contract.

    Args:
        summary: The counts.
        planned: Cells that should have been judged: all but those that the config excludes.
        require: Shares that must have been decided; what is None requires nothing.
        device_missing: A device that the config or the inventory names wasn't there.
        interrupted: Somebody ended the run.
    """
    if interrupted:
        return EXIT_INTERRUPTED
    if summary.failed:
        return EXIT_FAILED
    covered = _reached(summary.judged, planned, require.judged) and _reached(
        summary.speed_decided, summary.speed_gated, require.speed
    )
    if summary.errored or not covered or device_missing or summary.judged == 0:
        return EXIT_INCOMPLETE
    return EXIT_OK


def _reached(count: int, of: int, share: Fraction | None) -> bool:
    """Exactly: 55 of 100 reach 55 %."""
    wanted = share or Fraction(0)
    return count * wanted.denominator >= wanted.numerator * of


def last_line(results: Sequence[CellResult], summary: Summary, code: int) -> str:
    """Return the line that ends every run.

    For example `57/60 judged: 54 passed, 2 failed, 1 waived; 3 not judged (2 device missing,
    1 noisy); speed 51/57 decided -> exit 1`.
    """
    parts = [f"{summary.passed} passed", f"{summary.failed} failed"]
    if summary.waived:
        parts.append(f"{summary.waived} waived")
    retried = sum("retried" in result.flags for result in results)
    if retried:
        parts.append(f"{retried} retried")
    line = f"{summary.judged}/{len(results)} judged: {', '.join(parts)}"
    reasons = Counter(
        short_reason(result)
        for result in results
        if result.outcome in ("inconclusive", "errored", "skipped")
    )
    if reasons:
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        line += f"; {sum(reasons.values())} not judged ({listed})"
    if summary.speed_gated:
        line += f"; speed {summary.speed_decided}/{summary.speed_gated} decided"
        weak = Counter(word for result in results if (word := _weakness(result)))
        listed = ", ".join(f"{count} {word}" for word, count in weak.items())
        line += f" ({listed})" if listed else ""
    elif results:
        line += "; speed not gated"
    return f"{line} -> exit {code}"


def _weakness(result: CellResult) -> str:
    """What a speed was decided without: a guard that could not be read, or any valid number."""
    if result.speed_decision not in ("passed", "failed"):
        return ""
    if "speed_untrusted" in result.flags:
        return "by ratio alone"
    return "unverified" if "unverified" in result.flags else ""


def unproven(report: Report, why: str) -> Report:
    """Take a report its exit 0 and say why in its last line; any other code stays."""
    if report.exit_code != EXIT_OK:
        return report
    counts = report.verdict_line.rpartition(" -> exit ")[0]
    line = f"{counts}; {why} -> exit {EXIT_INCOMPLETE}"
    return replace(report, exit_code=EXIT_INCOMPLETE, verdict_line=line)


#: Flags that name why a cell was not judged, most telling first, and how the last line says it.
_REASON_FLAGS = {
    "device_missing": "device missing",
    "quarantined": "quarantined",
    "interrupted": "interrupted",
    "cancelled": "cancelled",
    "excluded": "excluded",
    "export_failed": "export failed",
    "unfit": "unfit",
    "no_runtime": "no runtime",
    "no_baseline": "no baseline",
    "incomparable": "incomparable",
    "invalid": "invalid",
    "noisy": "noisy",
    "insufficient": "insufficient",
}


def short_reason(result: CellResult) -> str:
    """Two or three words for why a cell was not judged."""
    for flag, words in _REASON_FLAGS.items():
        if flag in result.flags:
            return words
    return result.outcome
