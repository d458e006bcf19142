"""What a misspelt name most likely means. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one most likely means; None: nothing is near."""
    options = list(known)
    lowered = {option.lower(): option for option in options}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    if found:
        return lowered[found[0]]
    starts = (option for option in options if len(name) > 1 and option.startswith(name.lower()))
    return next(starts, None)


def meant(name: str, known: Iterable[str]) -> str:
    """The nearest name as the end of a message, `; did you mean pixel8?`; empty: none is near."""
    found = nearest(name, known)
    return "" if found is None else f"; did you mean {found}?"
