"""Why a run isn't green, as lines for a test's failure. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from farm.core.printable import one_line
from farm.core.result import Report
from farm.reports.attention import TITLES, Finding, findings, rerun_command

#: Findings that are written out; the count of the others is.
_MOST = 20


def reasons(report: Report) -> Iterator[str]:
    """Yield the verdict, what needs a look, and alarms."""
    yield report.verdict_line
    found = findings(report)
    for one in found[:_MOST]:
        yield one_line(_line(one), 600)
        yield f"  again: {rerun_command(report, one.result)}"
    if len(found) > _MOST:
        yield f"and {len(found) - _MOST} more in report.html"
    yield from (f"alarm: {one_line(alarm, 400)}" for alarm in report.alarms)


def _line(one: Finding) -> str:
    number = " ".join(part for part in (one.metric, one.now) if part)
    bound = f"had to be {one.was}" if one.was and not one.ratio else one.was and f"was {one.was}"
    ratio = f"ratio {one.ratio}" if one.ratio else ""
    said = ", ".join(part for part in (number, bound, ratio, one.where, one.why) if part)
    return f"{TITLES[one.group]}: {one.result.cell_id}: {said}"
