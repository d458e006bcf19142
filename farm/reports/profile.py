"""profile.html: where the time of each cell went. One file without any outside request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from farm.core.op_times import CellProfile, OperatorTime, ProfileReport, ProfileSummary
from farm.reports.html import document, text
from farm.reports.words import percent, seconds

#: Rows of one table: what comes after them takes next to no time.
ROWS = 20


def render(report: ProfileReport) -> str:
    """Render the page."""
    body = [
        f"<p class=eyebrow>profile</p><h1>{text(report.name)}</h1>"
        f"<p class=quiet>{text(report.run_id)}. Tracing takes time itself: read shares, not"
        " rates.</p>",
        *(_cell(cell) for cell in report.cells),
    ]
    return document(f"{report.name}: profile", body)


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


def _cell(cell: CellProfile) -> str:
    head = f"<h2>{text(cell.cell_id)}</h2>"
    if cell.error is not None:
        return f"{head}<p class='reason errored'>{text(cell.error.message)}</p>"
    about = f"<p class=quiet>{text(cell.runner or '')}</p>"
    if cell.emulated:
        about += "<p class='reason inconclusive'>emulated: the shares are the emulator's</p>"
    return head + about + "".join(_window(window) for window in cell.windows)


def _window(window: ProfileSummary) -> str:
    delegates = [
        (f"delegate at instruction {item.instruction}", item.calls, item.seconds)
        for item in window.delegates
    ]
    return (
        f"<h3>{text(window.name)}</h3><p>{text(where(window))}</p>"
        + _table("Delegates", delegates, window.total_s)
        + _table("Operators outside delegates", _rows(window.outside), window.total_s)
        + _table("Operators inside delegates", _rows(window.inside), window.total_s)
    )


def _rows(times: Iterable[OperatorTime]) -> list[tuple[str, int, float]]:
    return [(item.name, item.calls, item.seconds) for item in times]


def _table(title: str, rows: Sequence[tuple[str, int, float]], total_s: float) -> str:
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td class=w>{text(name)}</td><td class=n>{calls}</td>"
        f"<td class=n>{text(seconds(time_s))}</td>"
        f"<td class=n>{text(percent(time_s / total_s if total_s else None))}</td></tr>"
        for name, calls, time_s in rows[:ROWS]
    )
    left = len(rows) - ROWS
    more = f"<p class=quiet>and {left} more in profile.json</p>" if left > 0 else ""
    return (
        f"<details open><summary>{text(title)} ({len(rows)})</summary><div class=scroll><table>"
        "<thead><tr><th>name</th><th class=n>calls</th><th class=n>time</th><th class=n>share</th>"
        f"</tr></thead><tbody>{lines}</tbody></table></div>{more}</details>"
    )
