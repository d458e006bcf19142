"""The results as plain text, for terminals and logs without colour."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from farm.core.printable import one_line
from farm.core.result import Report
from farm.reports.summary import HEADERS, rows


def render(report: Report) -> str:
    """Render the cells, the reasons of those that didn't pass, alarms, and the last line."""
    found = rows(report)
    lines = columns(HEADERS, [row.columns for row in found])
    reasons = [
        f"{row.outcome} {one_line(result.cell_id)}: {row.reason}"
        for result, row in zip(report.results, found, strict=True)
        if row.reason
    ]
    if reasons:
        lines += ["", *reasons]
    lines += [f"alarm: {one_line(alarm)}" for alarm in report.alarms]
    return "\n".join([*lines, "", one_line(report.verdict_line)]) + "\n"


def columns(headers: Sequence[str], table: Sequence[Sequence[str]]) -> list[str]:
    """Lay cells out in columns; a cell with several lines makes its row higher."""
    split = [[cell.split("\n") for cell in row] for row in (headers, *table)]
    widths = [
        max(width(line) for row in split for line in row[column]) for column in range(len(headers))
    ]
    lines = []
    for index, row in enumerate(split):
        for line in range(max(len(cell) for cell in row)):
            parts = (
                cell[line] + " " * (w - width(cell[line])) if line < len(cell) else " " * w
                for cell, w in zip(row, widths, strict=True)
            )
            lines.append("  ".join(parts).rstrip())
        if index == 0:
            lines.append("  ".join("-" * w for w in widths))
    return lines


def width(text: str) -> int:
    """Columns that a text takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
