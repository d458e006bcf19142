"""Text of a device made harmless for terminals and reports."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")


def clean_text(raw: bytes | str) -> str:
    """Return text without terminal escapes or control characters but newlines and tabs."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = _ESCAPES.sub("", text)
    return "".join(c for c in text if c in "\n\t" or c.isprintable()).strip()
