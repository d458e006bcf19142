"""`farm report A B --format html`: two runs as one page, what got worse first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farm.commands.compare import Compared, Pair, compare
from farm.core.result import Report
from farm.reports.html import MARKS
from farm.reports.page import template
from farm.reports.words import number, size

_RED = ("failed", "errored")


def page(before: Report, after: Report) -> str:
    """Render the page; it needs no script."""
    cells = compare(before, after)
    values = {
        "runs": (("before", before), ("after", after)),
        "groups": [
            (title, found)
            for title, wanted in _GROUPS
            if (found := [cell for cell in cells if wanted(cell)])
        ],
        "marks": MARKS,
        "shown": _shown,
        "refused": _refused,
        "places": list(dict.fromkeys(line for cell in cells for line in cell.places)),
    }
    title = f"{before.name} {before.run_id} and {after.name} {after.run_id}"
    return template.page("compare.html.j2", title, values)


def _is_red(outcome: str) -> bool:
    return outcome in _RED


_GROUPS: Sequence[tuple[str, Callable[[Compared], bool]]] = (
    ("Now red", lambda cell: _is_red(cell.after) and not _is_red(cell.before)),
    ("Still red", lambda cell: _is_red(cell.after) and _is_red(cell.before)),
    ("Fixed", lambda cell: _is_red(cell.before) and cell.after == "passed"),
    ("No longer looked at", lambda cell: not cell.after),
    (
        "The others",
        lambda cell: (
            bool(cell.after)
            and not _is_red(cell.after)
            and not (_is_red(cell.before) and cell.after == "passed")
        ),
    ),
)


def _shown(pair: Pair, value: float | None) -> str:
    if value is None:
        return "-"
    return size(value) if pair.metric.endswith("_bytes") else number(value)


def _refused(cell: Compared) -> list[str]:
    """Why numbers of a cell have no ratio, each reason once."""
    return list(dict.fromkeys(pair.why for pair in cell.pairs if pair.why))
