"""The truth table: outcomes of cells to counts, one exit code and the last line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from farm.core.result import CellResult, Summary

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INCOMPLETE = 3
EXIT_INTERRUPTED = 130


def summarise(results: Sequence[CellResult]) -> Summary:
    """Count cells by outcome. A waived failure is judged, and not failed."""
    outcomes = Counter(result.outcome for result in results if not result.waived)
    waived = sum(result.waived for result in results)
    return Summary(
        judged=outcomes["passed"] + outcomes["failed"] + waived,
        passed=outcomes["passed"],
        failed=outcomes["failed"],
        waived=waived,
        inconclusive=outcomes["inconclusive"],
        errored=outcomes["errored"],
        skipped=outcomes["skipped"],
    )


def exit_code(
    summary: Summary,
    *,
    planned: int,
    require_judged: float,
    device_missing: bool,
    interrupted: bool = False,
) -> int:
    """Return the one exit code of a run, by the truth table of the CLI contract."""
    if interrupted:
        return EXIT_INTERRUPTED
    if summary.failed:
        return EXIT_FAILED
    covered = summary.judged >= require_judged * planned
    if summary.errored or not covered or device_missing or summary.judged == 0:
        return EXIT_INCOMPLETE
    return EXIT_OK


def last_line(results: Sequence[CellResult], summary: Summary, code: int) -> str:
    """Return the line that ends every run.

    For example `57/60 judged: 54 passed, 2 failed, 1 waived; 3 not judged (2 device missing,
    1 noisy) -> exit 1`.
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
    return f"{line} -> exit {code}"


#: Flags that name why a cell was not judged, most telling first, and how the last line says it.
_REASON_FLAGS = {
    "device_missing": "device missing",
    "quarantined": "quarantined",
    "interrupted": "interrupted",
    "export_failed": "export failed",
    "unfit": "unfit",
    "no_runtime": "no runtime",
    "no_baseline": "no baseline",
    "incomparable": "incomparable",
    "insufficient": "insufficient",
    "invalid": "invalid",
    "noisy": "noisy",
}


def short_reason(result: CellResult) -> str:
    """Two or three words for why a cell was not judged."""
    for flag, words in _REASON_FLAGS.items():
        if flag in result.flags:
            return words
    return result.outcome
