"""Text of a device made harmless for terminals and reports."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
#: Whole sequences alone: where a cut one ends is unknown.
_SEQUENCES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\))")


def clean_text(raw: bytes | str) -> str:
    """Return text without terminal escapes or control characters but newlines and tabs."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = _ESCAPES.sub("", text)
    return "".join(c for c in text if c in "\n\t" or c.isprintable()).strip()


def plain_text(text: str) -> str:
    """Text that a console decorated as the program printed it: its lines without escapes."""
    text = _SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def whole_lines(text: str) -> str:
    """Text without a last line that has no end: it may be cut inside a number or a name."""
    return text[: text.rfind("\n") + 1]


def whole_number(text: str | None, most: int) -> int | None:
    """Read a number of plain digits between 0 and `most`; None for anything else."""
    if text is None or not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        return None
    return value if (value := int(text)) <= most else None
