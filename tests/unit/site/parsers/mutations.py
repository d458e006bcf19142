"""What connections, consoles and sick devices do to a text on its way."""

from __future__ import annotations

import random
import re

_ESCAPES = ("\x1b[0m", "\x1b]0;title\x07", "\x00", "\x07", "\x1b[2J\x1b[1;31m", "\u202e", "\ufeff")
_HUGE = "9" * 31


def truncated(text: str, dice: random.Random) -> str:
    return text[: dice.randrange(len(text))]


def escaped(text: str, dice: random.Random) -> str:
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(text))
        text = text[:at] + dice.choice(_ESCAPES) + text[at:]
    return text


def huge(text: str, dice: random.Random) -> str:
    """A run of digits becomes a number that no device has, or one too long for Python to read."""
    runs = [match.span() for match in re.finditer(r"(?<![\w.-])\d+(?![\w.])", text)]
    for start, end in sorted(dice.sample(runs, min(len(runs), 3)), reverse=True):
        text = text[:start] + dice.choice((_HUGE, "9" * 5000)) + text[end:]
    return text


def encoded(text: str, dice: random.Random) -> str:
    wrong = dice.choice(("utf-16", "utf-32-be", "cp037"))
    return text.encode(wrong).decode(dice.choice(("utf-8", "latin-1")), "replace")


MUTATIONS = (truncated, escaped, huge, encoded)
