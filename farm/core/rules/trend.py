"""What a cell did over the nights: drawn and told, never judged. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None]) -> str:
    """Draw values from the oldest to the newest; a night without a number is a dot."""
    known = [value for value in values if value is not None]
    if not known:
        return "." * len(values)
    low, span = min(known), max(known) - min(known)

    def bar(value: float) -> str:
        return _BARS[0 if span == 0 else round((value - low) / span * (len(_BARS) - 1))]

    return "".join("." if value is None else bar(value) for value in values)


def red_since(outcomes: Sequence[str]) -> int | None:
    """Return the place of the first failure since the cell last passed; None: it isn't failing.

    A night that judged nothing neither begins nor ends it.
    """
    first = None
    for place, outcome in enumerate(outcomes):
        if outcome == "passed":
            first = None
        elif outcome == "failed" and first is None:
            first = place
    return first
