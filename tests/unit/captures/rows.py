"""One capture of the public folder, and what a person reads in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.unit.captures.readers import Read


@dataclass(frozen=True, slots=True)
class Row:
    """A file of the folder of captures."""

    #: Its place in the folder.
    path: str
    #: What of farm reads it; None where farm runs no such program.
    parser: str | None
    #: All that farm takes from it, as a person reads it there.
    values: Mapping[str, Any] = field(default_factory=dict)
    read: Read | None = None
    #: Why nothing reads it, or what a person reads there and farm leaves out, and why.
    note: str = ""


def unread(note: str, *paths: str) -> tuple[Row, ...]:
    """Captures of programs that farm doesn't run."""
    return tuple(Row(path, None, note=note) for path in paths)
