"""Reads an ETDump: what ExecuTorch's event tracer writes on a device. Pure, without PyTorch.

An ETDump is a size-prefixed FlatBuffer with the identifier `ED00`. Only profiling events are
read; field numbers are those of the schema that ships with ExecuTorch (devtools/etdump).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from farm.core.errors import BadOutput
from farm.core.op_times import TracedCall, TracedEvent

_IDENTIFIER = b"ED00"
#: Nanoseconds a tick: the runner keeps ExecuTorch's own clock.
_TICK_S = 1e-9
#: Field numbers: ETDump.run_data, RunData.name and .events, Event.profile_event.
_RUN_DATA, _NAME, _EVENTS, _PROFILE = 1, 0, 3, 0
#: Of ProfileEvent.
_INSTRUCTION, _DELEGATE_INT, _DELEGATE_STR, _START, _END = 2, 3, 4, 6, 7
#: Block of one execution of a method.
_EXECUTE = "Execute"
_MAX_STRING = 1000


def read_etdump(content: bytes) -> tuple[TracedCall, ...]:
    """Return the executions in a dump, in order.

    Raises:
        BadOutput: It is no ETDump, or damaged.
    """
    if content[8:12] != _IDENTIFIER:
        raise BadOutput("the profile isn't an ETDump", raw=repr(content[:64]))
    try:
        return _calls(_Table(content, 4 + _unsigned(content, 4)))
    except (struct.error, UnicodeDecodeError, RecursionError) as error:
        raise BadOutput(f"the ETDump is damaged: {error}", raw=repr(content[:64])) from error


def _calls(dump: _Table) -> tuple[TracedCall, ...]:
    return tuple(
        TracedCall(tuple(_events(run)))
        for run in dump.tables(_RUN_DATA)
        if run.text(_NAME) == _EXECUTE
    )


def _events(run: _Table) -> list[TracedEvent]:
    found = []
    for event in run.tables(_EVENTS):
        traced = event.table(_PROFILE)
        if traced is None:
            continue
        inside = traced.text(_DELEGATE_STR)
        number = traced.number(_DELEGATE_INT, "<i", -1)
        if inside is None and number >= 0:
            inside = f"operator {number}"
        ticks = traced.number(_END, "<Q", 0) - traced.number(_START, "<Q", 0)
        instruction = traced.number(_INSTRUCTION, "<i", -1)
        found.append(TracedEvent(traced.text(_NAME), instruction, inside, max(0, ticks) * _TICK_S))
    return found


def _unsigned(content: bytes, at: int) -> int:
    if at < 0:
        raise struct.error(f"an offset before the file: {at}")
    found: int = struct.unpack_from("<I", content, at)[0]
    return found


@dataclass(frozen=True, slots=True)
class _Table:
    """A FlatBuffers table at an offset."""

    content: bytes
    at: int

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return None if place is None else _Table(self.content, self._follow(place))

    def tables(self, field: int) -> list[_Table]:
        place = self._place(field)
        if place is None:
            return []
        start = self._follow(place)
        count = _unsigned(self.content, start)
        if count * 4 > len(self.content):
            raise struct.error(f"a list of {count} entries")
        places = range(start + 4, start + 4 + 4 * count, 4)
        return [_Table(self.content, self._follow(one)) for one in places]

    def text(self, field: int) -> str | None:
        place = self._place(field)
        if place is None:
            return None
        start = self._follow(place)
        size = min(_unsigned(self.content, start), _MAX_STRING)
        return self.content[start + 4 : start + 4 + size].decode("utf-8", "replace")

    def number(self, field: int, form: str, otherwise: int) -> int:
        place = self._place(field)
        if place is None:
            return otherwise
        found: int = struct.unpack_from(form, self.content, place)[0]
        return found

    def _follow(self, place: int) -> int:
        return place + _unsigned(self.content, place)

    def _place(self, field: int) -> int | None:
        """Where a field's value stands; None when the table doesn't have it."""
        if self.at < 0:
            raise struct.error(f"an offset before the file: {self.at}")
        table = self.at - struct.unpack_from("<i", self.content, self.at)[0]
        if table < 0:
            raise struct.error(f"an offset before the file: {table}")
        (size,) = struct.unpack_from("<H", self.content, table)
        if 4 + 2 * field >= size:
            return None
        (offset,) = struct.unpack_from("<H", self.content, table + 4 + 2 * field)
        return self.at + offset if offset else None
