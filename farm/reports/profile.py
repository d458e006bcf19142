"""profile.html: where the time of each cell went. One file without any outside request."""

from __future__ import annotations

from collections.abc import Iterable

from farm.core.op_times import OperatorTime, ProfileReport, ProfileSummary
from farm.reports.page import template
from farm.reports.words import percent, seconds

#: Rows of one table: what comes after them takes next to no time.
ROWS = 20


def render(report: ProfileReport) -> str:
    """Render the page."""
    values = {
        "report": report,
        "where": where,
        "delegates": _delegates,
        "rows": _rows,
        "most": ROWS,
    }
    return template.page("profile.html.j2", f"{report.name}: profile", values)


def where(window: ProfileSummary) -> str:
    """One line: how much of the time is inside delegates, outside them, and in neither."""
    if window.outside_share is None:
        return "nothing was traced"
    share = {
        "in delegates": window.delegates_s,
        "in operators outside delegates": window.operators_s,
        "in the runtime and tracing": window.overhead_s,
    }
    parts = ", ".join(f"{percent(value / window.total_s)} {name}" for name, value in share.items())
    return (
        f"{seconds(window.total_s)} in {window.calls} calls for {window.tokens} tokens: {parts};"
        f" {percent(window.outside_share)} outside delegates"
    )


def _delegates(window: ProfileSummary) -> list[tuple[str, int, float]]:
    return [
        (f"delegate at instruction {item.instruction}", item.calls, item.seconds)
        for item in window.delegates
    ]


def _rows(times: Iterable[OperatorTime]) -> list[tuple[str, int, float]]:
    return [(item.name, item.calls, item.seconds) for item in times]
