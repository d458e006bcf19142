"""Selectors: which devices a request means. `transport=adb, abi in (arm64-v8a), ram>=6GiB`.

Terms are joined with commas and all must hold; an empty selector matches every device.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from farm.core.errors import ConfigError

_TERM = re.compile(
    r"\s*(?P<key>[A-Za-z_][\w.-]*)\s*"
    r"(?:(?P<set>not\s+in|in)\s*\((?P<members>[^()]*)\)|(?P<op>!=|>=|<=|=|>|<)\s*(?P<value>[^,()<>=!]+?))"
    r"\s*(?:,|$)"
)
_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?$")
_UNITS = {
    None: 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}

Attributes = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: attribute, operator, and the values it is compared with."""

    key: str
    op: str
    values: tuple[str, ...]

    def holds(self, attributes: Attributes) -> bool:
        """Return whether the attributes satisfy this term; a missing attribute does only for !=."""
        actual = attributes.get(self.key)
        if actual is None:
            return self.op in ("!=", "not in")
        if self.op in ("=", "in"):
            return any(_equal(actual, value) for value in self.values)
        if self.op in ("!=", "not in"):
            return not any(_equal(actual, value) for value in self.values)
        left, right = quantity(str(actual)), quantity(self.values[0])
        if left is None or right is None:
            return False
        comparisons = {
            ">=": left >= right,
            "<=": left <= right,
            ">": left > right,
            "<": left < right,
        }
        return comparisons[self.op]

    def __str__(self) -> str:
        if self.op in ("in", "not in"):
            return f"{self.key} {self.op} ({', '.join(self.values)})"
        return f"{self.key}{self.op}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class Selector:
    """A conjunction of terms."""

    terms: tuple[Term, ...]

    def matches(self, attributes: Attributes) -> bool:
        """Return whether every term holds."""
        return all(term.holds(attributes) for term in self.terms)

    def failing(self, attributes: Attributes) -> tuple[Term, ...]:
        """Return the terms that don't hold: the reason for people."""
        return tuple(term for term in self.terms if not term.holds(attributes))


def parse_selector(text: str) -> Selector:
    """Parse a selector.

    Raises:
        ConfigError: It can't be read; the message points at the place and gives an example.
    """
    terms: list[Term] = []
    rest = text.strip()
    while rest:
        match = _TERM.match(rest)
        if match is None:
            raise ConfigError(
                f"selector {text!r} can't be read at {rest!r}; write terms like "
                "`transport=adb, abi in (arm64-v8a), ram>=6GiB, name!=pi5`"
            )
        if match["set"]:
            members = tuple(m.strip() for m in match["members"].split(",") if m.strip())
            terms.append(Term(match["key"], re.sub(r"\s+", " ", match["set"]), members))
        else:
            value = match["value"].strip()
            if match["op"] not in ("=", "!=") and quantity(value) is None:
                raise ConfigError(
                    f"selector {text!r}: {value!r} is no number; write for example `ram>=6GiB`"
                )
            terms.append(Term(match["key"], match["op"], (value,)))
        rest = rest[match.end() :]
    return Selector(tuple(terms))


def quantity(text: str) -> float | None:
    """Read a number with or without a unit of bytes; None when it is neither."""
    match = _QUANTITY.match(text.strip())
    return None if match is None else float(match[1]) * _UNITS[match[2]]


def _equal(actual: str | int, wanted: str) -> bool:
    if isinstance(actual, int):
        return quantity(wanted) == actual
    return actual.casefold() == wanted.casefold()
