"""Text of devices and models made safe to show: no terminal escapes, no control characters."""

from __future__ import annotations

import re

#: CSI and OSC/DCS/APC/PM sequences, then any other escape with its final byte; 7- and 8-bit forms.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
#: C0 and C1 controls but tab and newline, DEL, and marks that reorder or hide text.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Strip escapes and control characters; newlines and tabs stay."""
    text = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", _CONTROLS.sub("", text))


def one_line(text: str, limit: int = 0) -> str:
    """Printable text on one line, cut to `limit` characters (0: not cut)."""
    line = " ".join(printable(text).split())
    return f"{line[: limit - 1]}…" if limit and len(line) > limit else line
