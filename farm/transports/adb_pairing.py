"""Wireless debugging: what phones announce in this network, and pairing with one by its code.

The adb server does both, from platform-tools 31 on; what it answers is read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from farm.clock import Deadline
from farm.core.errors import ConfigError, ConnectError
from farm.transports.adb_devices import FAILURES, ask, ensure_server, server_address, spelled
from farm.transports.adb_wire import ServerRefused

_LIST_S = 5.0
#: The phone may have to be found first.
_PAIR_S = 30.0
_KINDS: dict[str, Literal["pairing", "paired", "plain"]] = {
    "_adb-tls-pairing._tcp": "pairing",
    "_adb-tls-connect._tcp": "paired",
    "_adb._tcp": "plain",
}
_SERVICE = re.compile(
    r"(?P<name>\S[^\t]*?)[ \t]+(?P<kind>_adb[\w-]*\._tcp)\.?[ \t]+(?P<at>\S+:\d{1,5})\Z"
)
_OLD = (
    "it is of an adb before platform-tools 31: put a newer adb first on PATH, end the old server"
    " (adb kill-server), and repeat"
)


@dataclass(frozen=True, slots=True)
class Announced:
    """What a phone announces by mDNS."""

    #: `adb-SERIAL-xxxxxx`.
    name: str
    #: `pairing` waits for a code, `paired` for those who are paired, `plain` for everybody.
    kind: Literal["pairing", "paired", "plain"]
    #: `host:port`; a pairing has a port of its own.
    address: str


def parse_announced(text: str) -> tuple[Announced, ...]:
    """Read the server's list of mDNS services; lines of other kinds are passed over."""
    rows = (_SERVICE.match(line.strip()) for line in text.splitlines())
    return tuple(
        Announced(row["name"], _KINDS[row["kind"]], row["at"])
        for row in rows
        if row is not None and row["kind"] in _KINDS
    )


def announced(server: str | None = None) -> tuple[Announced, ...]:
    """What phones in this network announce now.

    Raises:
        ConnectError: There is no adb server, or it can't look.
        ConfigError: Its address is malformed.
    """
    return parse_announced(_asked(server, "host:mdns:services", _LIST_S))


def pair(place: str, code: str, server: str | None = None) -> str:
    """Pair this host with a phone; return the server's word for it.

    Args:
        place: `host:port` that the phone shows beside its code.
        code: The digits that it shows.
        server: `host:port` of the adb server; None is the usual one.

    Raises:
        ConfigError: Place or code are malformed.
        ConnectError: The phone refuses the code or can't be reached, or there is no adb server.
    """
    if not re.fullmatch(r"[^\s:]+:[0-9]{1,5}|\[[0-9a-fA-F:.%\w]+\]:[0-9]{1,5}", place):
        raise ConfigError(f"'{place}' isn't the HOST:PORT that the phone shows beside its code")
    if not re.fullmatch(r"[0-9]{6}", code):
        raise ConfigError("the code has six digits; the phone shows it under `Pair device`")
    answer = _asked(server, f"host:pair:{code}:{place}", _PAIR_S)
    if not answer.startswith("Successfully paired"):
        raise _refused(place, answer)
    return answer.strip()


def _asked(server: str | None, request: str, limit_s: float) -> str:
    address = server_address(server)
    ensure_server(address)
    where = spelled(address)
    try:
        return ask(address, request, Deadline(limit_s))
    except ServerRefused as error:
        if "unknown host service" in str(error):
            raise ConnectError(
                f"the adb server at {where} knows no wireless debugging: {_OLD}", remedy=_OLD
            ) from error
        raise _refused(request.rpartition(":pair:")[2].partition(":")[2], str(error)) from error
    except FAILURES as error:
        raise ConnectError(f"the adb server at {where} doesn't answer: {error}") from error


def _refused(place: str, answer: str) -> ConnectError:
    remedy = (
        "open `Pair device with pairing code` anew: its port and code change each time, and the"
        " phone has to be in this network"
    )
    reason = answer.strip().removeprefix("Failed: ")
    return ConnectError(f"{place} wasn't paired: {reason}: {remedy}", remedy=remedy)
