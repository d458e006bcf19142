"""What programs print, read with care: JSON lines among other text, a piece for errors. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from farm.core.errors import RAW_BYTES


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
