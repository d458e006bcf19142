"""Spans of time as people write and read them: `1h30m`, `12 min`. Pure."""

from __future__ import annotations

import re

_UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(d|h|min|m|s)")


def parse_duration(text: str) -> float:
    """Read `2h`, `90min`, `1h30m` or `45 s` as seconds.

    Raises:
        ValueError: It isn't written like that, or is nothing.
    """
    total, at = 0.0, 0
    while match := _PART.match(text, at):
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if text[at:].strip() or total <= 0:
        raise ValueError(f"{text!r} is no duration; write for example 2h, 90min or 1h30m")
    return total


def duration_text(seconds: float) -> str:
    """Time left for people: `2 d 3 h`, `1 h 40 min`, `12 min`, `45 s`."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"
