"""One JSON object that farm-helper printed. What is missing or of another kind is BadOutput."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from farm.core.errors import RAW_BYTES, BadOutput

#: Characters of it that the message of an error shows.
_SHOWN = 120


class Answer:
    """Members of an answer, taken by kind.

    Args:
        raw: The line.
        device: Name, for errors.

    Raises:
        BadOutput: It isn't a JSON object.
    """

    def __init__(self, raw: bytes, device: str) -> None:
        self._raw = raw
        self._device = device
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise bad_answer(raw, device, "didn't print JSON") from error
        if not isinstance(value, dict):
            self._refuse("didn't print a JSON object")
        self._values: dict[str, Any] = value

    def text(self, key: str) -> str:
        """A text."""
        value = self._values.get(key)
        return value if isinstance(value, str) else self._missing(key, "text")

    def size(self, key: str) -> int:
        """A whole number that isn't negative."""
        value = self._integer(key)
        return value if value is not None and value >= 0 else self._missing(key, "size")

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._values.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value or 0) or abs(value or 0) > 1e18:
            self._missing(key, "number")
        return float(value or 0)

    def code(self, key: str) -> int | None:
        """A whole number, or None where the answer says null."""
        if key in self._values and self._values[key] is None:
            return None
        value = self._integer(key)
        return value if value is not None else self._missing(key, "code")

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        value = self._values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._missing(key, "list of texts")
        return list(value)

    def answer(self, key: str) -> Answer:
        """An object."""
        value = self._values.get(key)
        if not isinstance(value, dict):
            self._missing(key, "object")
        return Answer(json.dumps(value).encode(), self._device)

    def truth(self, key: str) -> bool:
        """True or false."""
        value = self._values.get(key)
        return value if isinstance(value, bool) else self._missing(key, "truth")

    def answers(self, key: str) -> list[Answer]:
        """A list of objects."""
        value = self._values.get(key)
        if not isinstance(value, list):
            self._missing(key, "list of objects")
        return [Answer(json.dumps(item).encode(), self._device) for item in value]

    def word(self, key: str) -> str | None:
        """A text; None where it is absent or null."""
        return None if self._values.get(key) is None else self.text(key)

    def _integer(self, key: str) -> int | None:
        value = self._values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _missing(self, key: str, kind: str) -> NoReturn:
        self._refuse(f"gave no {kind} '{key}'")

    def _refuse(self, what: str) -> NoReturn:
        raise bad_answer(self._raw, self._device, what)


def bad_answer(raw: bytes, device: str, what: str) -> BadOutput:
    """Error about an answer of farm-helper; its message shows the beginning of the text."""
    text = raw[:RAW_BYTES].decode("utf-8", "replace")
    return BadOutput(f"farm-helper on {device} {what}: {text[:_SHOWN]!r}", device=device, raw=text)
