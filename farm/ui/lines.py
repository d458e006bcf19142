"""Rows of the live view laid out as lines of a terminal, without rich's tables.

A table of forty rows costs rich some 20 ms a frame; drawn four times a second that is more than
watching may take. What a row says of rates and reasons is never cut: where it doesn't fit beside
the rest it gets lines of its own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

#: Columns of a terminal from which on there is room for bars and cells.
WIDE = 110
_BAR = 14
#: Cells of what a device works on, below which it says nothing.
_LEAST_ABOUT = 12
#: Lines that what doesn't fit beside a row may take below it.
_BELOW = 4

#: Text and its style, `bold red`.
Part = tuple[str, str]
Line = list[Part]


@dataclass(frozen=True, slots=True)
class Row:
    """One task or device."""

    name: Part
    #: What it does: `measure 3/8 launches`.
    stage: Part
    #: A rate, or why it waits; never cut.
    text: Part = ("", "")
    #: At the right end.
    time: str = ""
    #: 0..1; None: no end is known. Only drawn where `bar` is set and there is room.
    share: float | None = None
    bar: bool = False
    #: What it works on; left out where there is no room.
    about: str = ""
    chosen: bool = False


class Lines:
    """Lines as something that rich prints; each is cut at the width, in cells."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the segments of every line."""
        for line in self._lines:
            left = options.max_width
            for text, style in line:
                shown = cut(text, left)
                left -= cell_len(shown)
                if shown:
                    yield Segment(shown, _style(style))
            yield Segment.line()


def laid_out(rows: Sequence[Row], width: int) -> list[list[Line]]:
    """Lay rows out in common columns; returns the lines of each row."""
    wide, gap = width >= WIDE, "  " if width >= WIDE else " "
    stages = min(_widest(row.stage[0] for row in rows), max(12, width // (4 if wide else 3)))
    bars = _BAR if wide and any(row.bar for row in rows) else 0
    times = _widest(row.time for row in rows)
    taken = 1 + sum(column + len(gap) for column in (stages, bars, times) if column)
    # Rates and reasons come first: names get what they leave, and what a device works on the rest.
    left = width - taken - 2 * len(gap) - min(_widest(row.text[0] for row in rows), width // 2)
    names = min(_widest(row.name[0] for row in rows), max(16, width // 6, left))
    taken += names + len(gap)
    left -= names + len(gap)
    abouts = min(_widest(row.about for row in rows), left) if wide else 0
    abouts = abouts if abouts >= _LEAST_ABOUT else 0
    room = max(0, width - taken - (abouts + len(gap) if abouts else 0))
    found = []
    for row in rows:
        name = _fit(middle(row.name[0], names), names)
        line: Line = [(">" if row.chosen else " ", "bold"), (name, row.name[1])]
        if abouts:
            line += [(gap, ""), (_fit(row.about, abouts), "dim")]
        line += [(gap, ""), (_fit(row.stage[0], stages), row.stage[1])]
        if bars:
            line += [(gap, ""), *(_bar(row.share) if row.bar else [(" " * bars, "")])]
        text, style = row.text
        fits = cell_len(text) <= room
        line += [(gap, ""), (_fit(text if fits else "", room), style)]
        if row.time:
            line.append((gap + row.time.rjust(times), "dim"))
        found.append([line, *([] if fits else _below(text, style, width))])
    return found


def cut(text: str, width: int) -> str:
    """Text of at most `width` cells; what is cut ends in an ellipsis."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


def middle(text: str, width: int) -> str:
    """The same with the ellipsis in the middle: names often differ at their ends."""
    if cell_len(text) <= width or width < 5:
        return cut(text, width)
    tail = text[-((width - 1) // 2) :]
    return set_cell_size(text, width - 1 - cell_len(tail)) + "…" + tail


def wrapped(text: str, style: str, width: int, most: int) -> list[Line]:
    """Text on so many lines at most."""
    found = textwrap.wrap(text, width, max_lines=most, placeholder="…", break_on_hyphens=False)
    return [[(line, style)] for line in found]


def _below(text: str, style: str, width: int) -> list[Line]:
    return [[("    ", ""), *line] for line in wrapped(text, style, max(10, width - 6), _BELOW)]


def _fit(text: str, width: int) -> str:
    shown = cut(text, width)
    return shown + " " * (width - cell_len(shown))


def _widest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _bar(share: float | None) -> Line:
    if share is None:
        return [("·" * _BAR, "dim")]
    done = round(share * _BAR)
    return [("━" * done, "green" if share >= 1 else "blue"), ("─" * (_BAR - done), "dim")]


@cache
def _style(text: str) -> Style:
    return Style.parse(text) if text else Style.null()
