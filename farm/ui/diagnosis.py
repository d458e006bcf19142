"""The table of `farm diagnose`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from farm.core.diagnosis import Diagnosis, OperatorError
from farm.core.printable import one_line
from farm.ui.frame import new_table

#: Rows of values that agree: those nearest to their tolerance.
_AGREEING = 5


def diagnosis(found: Diagnosis) -> RenderableType:
    """What parts, the nearest of what doesn't, and what was not looked at."""
    table = new_table("stage", "layer", "operator", "off by", "row", "column", "", right=_NUMBERS)
    parting = [row for row in found.rows if row.parts]
    others = sorted((row for row in found.rows if not row.parts), key=lambda row: -(row.error or 0))
    for row in (*parting, *others[:_AGREEING]):
        table.add_row(*_words(row), style="red" if row.parts else "")
    left = len(others) - len(others[:_AGREEING])
    lines = [f"and {left} more that agree"] if left else []
    lines += [f"{stage}: {said}" for stage, said in found.observed]
    lines += [f"not looked at: {what}" for what in found.unseen]
    said = {None: "not asked", True: "PARTS", False: "agrees"}
    lines += [f"driver {row.name}: {said[row.parts]}: {row.reason}" for row in found.drivers]
    style = "bold red" if found.blame else "bold"
    return Group(
        table,
        *(Text(one_line(line, 300), "dim") for line in lines),
        Text(one_line(found.sentence, 500), style),
    )


_NUMBERS = ("off by", "row", "column")


def _words(row: OperatorError) -> list[str]:
    layer = "" if row.layer is None else str(row.layer)
    figures = (row.error, row.row_error, row.column_error)
    numbers = ["-" if one is None else f"{one:.2g}" for one in figures]
    if row.error is not None:
        numbers[0] += " x"
    return [row.stage, layer, one_line(row.operator), *numbers, one_line(row.reason, 100)]
