"""Names by which a phone is found: what the server lists, or the serial number that it has itself.

A wireless phone is listed under an address or an mDNS name that changes; its own `ro.serialno`
doesn't, so an entry may name that.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from farm.clock import Deadline
from farm.core.errors import ConnectError, TransportError
from farm.transports.adb_devices import (
    CONNECTABLE,
    FAILURES,
    AttachedDevice,
    ask,
    attached,
    bring_online,
    refusal,
    spelled,
    state_of,
)
from farm.transports.adb_wire import Patience, ServerRefused, Stream

TCP_SERIAL = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]+):\d+\Z")
#: `adb-SERIAL-xxxxxx`, perhaps with ` (2)`: the phone's own serial number is a part of it.
_MDNS = re.compile(r"adb-(?P<serialno>.+)-\w{6}(?: \(\d+\))?\._adb(?:-tls-connect)?\._tcp\.?")
#: For the question to one phone that may be asleep.
_ASK_S = 2.0
#: For all of them: the caller waits for one phone alone.
_ALL_S = 4.0
_LONGEST = 200


def usable_serial(server: tuple[str, int], serial: str, limit: Deadline) -> str:
    """Return the name under which a device can be used now, connecting it where that helps.

    Args:
        server: The adb server.
        serial: As the server lists it, `host:port`, or the phone's own `ro.serialno`.
        limit: For all of it.

    Raises:
        ConnectError: It can't be used; the message names its state and the remedy.
    """
    state = state_of(server, serial)
    if state in CONNECTABLE and TCP_SERIAL.match(serial):
        state = bring_online(server, serial, limit.remaining_s)
    if state == "absent":
        other = by_serialno(server, serial, Deadline(min(_ALL_S, limit.remaining_s)))
        if other is not None:
            return other
    if state != "device":
        raise refusal(serial, state)
    return serial


def by_serialno(
    server: tuple[str, int], serialno: str, limit: Deadline | None = None
) -> str | None:
    """Name in the list of the wireless phone that has this serial number; None when none has.

    Raises:
        ConnectError: The server doesn't answer.
    """
    rows = [row for row in attached(spelled(server), start=False) if row.state == "device"]
    for row in rows:
        found = _MDNS.fullmatch(row.serial)
        if found is not None and found["serialno"] == serialno:
            return row.serial
    asked = _asked(server, rows, limit or Deadline(_ALL_S))
    return next((name for name, own in asked if own == serialno), None)


def _asked(
    server: tuple[str, int], rows: Sequence[AttachedDevice], limit: Deadline
) -> Iterator[tuple[str, str]]:
    """The serial numbers that phones on TCP addresses say; those that don't answer are left out."""
    for row in rows:
        if TCP_SERIAL.match(row.serial) and not limit.passed:
            with contextlib.suppress(OSError, ServerRefused, TransportError, ValueError):
                yield row.serial, _serialno(server, row.serial)


def _serialno(server: tuple[str, int], serial: str) -> str:
    limit = Deadline(_ASK_S)
    stream = Stream.connect(server, serial, _ASK_S)
    try:
        patience = Patience(serial, "its serial number", deadline=limit)
        stream.request(b"host:transport:" + serial.encode(), patience)
        stream.request(b"exec:getprop ro.serialno", patience)
        said = b""
        while (piece := stream.read_some(_LONGEST, patience)) and len(said) < _LONGEST:
            said += piece
        return said.decode("utf-8", "replace").strip()
    finally:
        stream.close()


def too_old(server: tuple[str, int], serial: str) -> str:
    """Why a phone's adbd can't serve us; empty when it can, or when that isn't known."""
    try:
        features = ask(server, f"host-serial:{serial}:features", Deadline(_ASK_S)).split(",")
    except FAILURES:
        return ""
    lacks = [name for name in ("shell_v2", "stat_v2") if name not in features]
    if not lacks:
        return ""
    return (
        f"its adbd knows no {' and no '.join(lacks)}, so that neither exit codes nor files can be"
        " told: farm needs Android 8 or later there"
    )


def unserved(server: tuple[str, int], serial: str, reason: str) -> ConnectError:
    """Error of a phone that the server has, and that refuses what we ask of it."""
    old = too_old(server, serial)
    state = {"state": "unfit", "remedy": "use a phone with Android 8 or later"} if old else {}
    return ConnectError(f"adb device {serial}: {old or reason}", **state)
