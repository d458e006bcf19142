"""What programs print, read with care: JSON lines among other text, a piece for errors. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from farm.core.errors import RAW_BYTES

#: Figures beyond these are garbage: no launch lasts, counts or holds so much.
MOST_S, MOST_TOKENS, MOST_RATE, MOST_BYTES = 1e6, 1 << 30, 1e7, 1 << 50
MOST_THREADS = 4096


def whole(value: Any, most: float) -> int:
    """A whole number from 0 on that a program printed.

    Raises:
        ValueError, TypeError, OverflowError: It is none, or beyond `most`.
    """
    number = int(value)
    if not 0 <= number <= most:
        raise ValueError(f"the number {str(number)[:40]}")
    return number


def json_value(line: bytes) -> object:
    """Value of one line; None when it isn't JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def json_objects(stdout: bytes) -> Iterator[dict[str, Any]]:
    """Objects among the lines; other text is passed over."""
    for line in stdout.splitlines():
        value = json_value(line)
        if isinstance(value, dict):
            yield value


def last_words(raw: bytes) -> str:
    """End of an output, where programs say what went wrong."""
    return raw[-RAW_BYTES:].decode("utf-8", "replace")
