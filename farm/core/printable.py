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
#: Stands for a value that may be a key or token.
MASK = "***"
#: Variables that choose how a runner works; a report must tell them.
_CHOICES = frozenset({"FARM_XNNPACK", "LD_LIBRARY_PATH"})
_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Strip escapes and control characters; newlines and tabs stay."""
    text = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", _CONTROLS.sub("", text))


def one_line(text: str, limit: int = 0) -> str:
    """Printable text on one line, cut to `limit` characters (0: not cut)."""
    line = " ".join(printable(text).split())
    return f"{line[: limit - 1]}…" if limit and len(line) > limit else line


def shown_value(name: str, value: str) -> str:
    """Value of a variable as reports show it: masked, unless it is one of farm's own choices."""
    return value if name in _CHOICES else MASK
