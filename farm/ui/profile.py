"""The tables of `farm profile`."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farm.core.op_times import CellProfile, ProfileReport, ProfileSummary
from farm.core.printable import one_line
from farm.reports.profile import where
from farm.reports.words import percent, seconds

#: Rows of one kind: what comes after them takes next to no time.
ROWS = 8


def profile(report: ProfileReport) -> RenderableType:
    """Where the time of each cell went: operators outside delegates, then those inside."""
    return Group(*(part for cell in report.cells for part in _cell(cell)))


def _cell(cell: CellProfile) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(one_line(cell.cell_id), "bold")]
    if cell.error is not None:
        parts.append(Text(f"  {one_line(cell.error.message)}", "red"))
    if cell.emulated:
        parts.append(Text("  emulated: the shares are the emulator's", "yellow"))
    for window in cell.windows:
        parts += [Text(f"{one_line(window.name)}: {where(window)}"), _table(window)]
    return parts


def _table(window: ProfileSummary) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("where", "operator", "calls", "time", "share"):
        table.add_column(name, justify="right" if name in ("calls", "time", "share") else "left")
    for place, times in (("outside delegates", window.outside), ("in delegates", window.inside)):
        for item in times[:ROWS]:
            share = item.seconds / window.total_s if window.total_s else None
            table.add_row(
                *(place, one_line(item.name), str(item.calls)),
                *(seconds(item.seconds), percent(share)),
            )
    return table
