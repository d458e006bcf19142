"""What an adb server reports of its devices: the list, each state's remedy, connecting.

Parsing is pure. adbutils carries an `adb` program for machines that have none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from farm.clock import Deadline
from farm.core.errors import ConfigError, ConnectError, TransportError
from farm.transports.adb_wire import Patience, ServerRefused, Stream

_log = logging.getLogger(__name__)

_DEFAULT_PORT = 5037
#: Names of this machine.
_HERE = ("127.0.0.1", "localhost", "::1")
_START_S = 20.0
_LIST_S = 5.0
#: How long a device that was just connected may take to identify itself.
_SETTLE_S = 1.5
#: States whose name is one word; `no permissions` goes on with a free text.
_REMEDIES = {
    "unauthorized": "unlock it and accept the USB debugging question, then try again",
    "authorizing": "unlock it and accept the USB debugging question, then try again",
    "offline": "unplug and replug it, or restart its adbd",
    "recovery": "it is in recovery mode: restart it (adb reboot)",
    "rescue": "it is in rescue mode: restart it (adb reboot)",
    "sideload": "it waits for a sideload: restart it (adb reboot)",
    "bootloader": "it is in its bootloader: restart it (fastboot reboot)",
    "fastbootd": "it is in fastboot mode: restart it (fastboot reboot)",
    "connecting": "it is still connecting: wait some seconds",
    "detached": "another adb server has it: run adb attach, or stop that server",
    "host": "it is an adb host, not a device",
    "no permissions": "add a udev rule for it and your user to the group plugdev, then replug it",
    "absent": "plug it in, turn on USB debugging, and look at `adb devices`",
    "duplicated": "several devices have this serial number: name each by its USB path as `serial`,"
    " for example usb:1-2 (adb devices -l), or unplug all but one",
    "without a serial number": "replug it, or give it a serial number: adb can't address it",
}
#: Devices that Wi-Fi debugging names: no cable, and a name that comes and goes.
_MDNS_REMEDY = "turn its wireless debugging off and on again, or connect it with a cable"
#: What the list shows in place of a serial number that a device doesn't report.
_NO_SERIAL = ("(no serial number)", "????????????")
#: A serial number and what parts it from the state: blanks inside it are told from adb's sentences
#: by the second mDNS name of a device, or by columns that more than one blank parts.
_SERIAL = (
    r"(?:(?P<serial>\(no serial number\)|adb-\S+ \(\d+\)\._adb\S*|\S+)[ \t]+"
    r"|(?P<spaced>\S+(?: \S+)*)(?:\t|  )[ \t]*)"
)
#: What follows a state: `key:value`, a place on the bus without its key, a last word that was cut.
_TAGS = r"(?P<rest>(?:(?:[ \t]+(?:[a-z_]+:\S*|[0-9][\w.-]*))+(?:[ \t]+[a-z_]*)?)?)"
_STATES = "|".join(re.escape(state) for state in ("device", *_REMEDIES) if " " not in state)
_ROW = re.compile(rf"(?!(?:{_STATES})[ \t]){_SERIAL}(?P<state>{_STATES}){_TAGS}\Z")
_REFUSED_ROW = re.compile(rf"{_SERIAL}(?P<state>no permissions)(?=[ \t(;]|\Z)(?P<rest>.*)")
# A newer adb knows more states.
_OTHER_ROW = re.compile(
    rf"(?P<serial>\S+)(?:\t|  |(?= \S+ [a-z_]+:\S))[ \t]*(?P<state>[a-z][\w-]*){_TAGS}\Z"
)
#: How a question to a server fails: none listens, it refuses, or it speaks another protocol.
FAILURES = (OSError, ServerRefused, TransportError, ValueError)
#: States that a TCP device may leave by being connected, or by itself in a moment.
CONNECTABLE = ("absent", "offline", "connecting", "authorizing")
#: One lock for each device of each server: two connections to one address that begin at the same
#: moment disturb each other, and adbd drops both.
_connecting: defaultdict[tuple[tuple[str, int], str], threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True, slots=True)
class AttachedDevice:
    """One row of the server's list."""

    serial: str
    #: `device` when it is usable.
    state: str
    model: str | None = None
    product: str | None = None
    #: Its place on the bus, `usb:1-2`: another name by which adb finds it.
    path: str | None = None

    @property
    def remedy(self) -> str:
        """What a person has to do; empty when it is usable."""
        if self.state == "device":
            return ""
        if "._adb" in self.serial and self.state in ("absent", "offline"):
            return _MDNS_REMEDY
        return _REMEDIES.get(self.state, "look at `adb devices -l`")


def parse_devices(text: str) -> tuple[AttachedDevice, ...]:
    """Read the list of `host:devices-l`, or of `adb devices -l`; what are no rows is skipped."""
    before, header, listed = text.partition("List of devices attached")
    rows = (_row(line) for line in (listed if header else before).splitlines())
    return tuple(row for row in rows if row is not None)


def _row(line: str) -> AttachedDevice | None:
    line = line.strip()
    if line.startswith(("*", "error:", "adb:")):
        return None
    found = _ROW.match(line) or _REFUSED_ROW.match(line) or _OTHER_ROW.match(line)
    if found is None:
        return None
    serial, state = found["serial"] or found["spaced"], found["state"]
    tags = dict(word.split(":", 1) for word in found["rest"].split() if ":" in word)
    path = f"usb:{tags['usb']}" if tags.get("usb") else None
    if serial in _NO_SERIAL:
        serial = path or serial  # its place on the bus is the only name it has
        state = "without a serial number" if path is None and state == "device" else state
    return AttachedDevice(serial, state, tags.get("model"), tags.get("product"), path)


def usable_rows(rows: Sequence[AttachedDevice]) -> tuple[AttachedDevice, ...]:
    """Rows under names that lead to one device each.

    Of devices with one serial number each goes by its place on the bus; those that have none
    become one row with state `duplicated`.
    """
    found: dict[str, AttachedDevice] = {}
    serials = Counter(row.serial for row in rows)
    for row in rows:
        if serials[row.serial] == 1:
            found[row.serial] = row
        elif row.path:
            found[row.path] = replace(row, serial=row.path)
        else:
            found[row.serial] = replace(row, state="duplicated")
    return tuple(found.values())


def server_address(setting: str | None) -> tuple[str, int]:
    """Address of the adb server: the inventory's, else adb's own environment variables.

    Raises:
        ConfigError: It isn't `host:port`.
    """
    if setting:
        return _host_port(setting, f"adb server '{setting}'")
    if socket_text := os.environ.get("ADB_SERVER_SOCKET"):
        what = f"ADB_SERVER_SOCKET='{socket_text}'"
        kind, _, place = socket_text.partition(":")
        if kind != "tcp":
            raise ConfigError(
                f"{what}: farm reaches an adb server over TCP alone: set tcp:host:port or unset it"
            )
        # adb's own short form: a port of this machine.
        return _host_port(place if ":" in place else f"127.0.0.1:{place}", what)
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
    port = os.environ.get("ANDROID_ADB_SERVER_PORT") or str(_DEFAULT_PORT)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    what = f"ANDROID_ADB_SERVER_ADDRESS and ANDROID_ADB_SERVER_PORT, '{host}:{port}',"
    return _host_port(f"{host}:{port}", what)


def named_by() -> str:
    """Variable by which the environment names a server that somebody else keeps; empty for none.

    A port alone, or an address of this machine, is of a server that is started here at need. A
    socket may lead through a tunnel, which looks like a server of this machine.
    """
    if os.environ.get("ADB_SERVER_SOCKET"):
        return "ADB_SERVER_SOCKET"
    name = "ANDROID_ADB_SERVER_ADDRESS"
    return name if os.environ.get(name) and server_address(None)[0] not in _HERE else ""


def _host_port(text: str, what: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16 or not host.strip():
        raise ConfigError(f"{what} isn't host:port, for example 127.0.0.1:{_DEFAULT_PORT}")
    return host.strip("[]"), int(port)


def attached(server: str | None = None, *, start: bool = True) -> tuple[AttachedDevice, ...]:
    """List the devices of an adb server, usable or not.

    Args:
        server: `host:port`; None is the default server.
        start: Start a server on this machine where none runs.

    Raises:
        ConnectError: There is no server, or it doesn't answer.
        ConfigError: The address is malformed.
    """
    address = server_address(server)
    if start:
        ensure_server(address)
    try:
        return parse_devices(ask(address, "host:devices-l", Deadline(_LIST_S)))
    except FAILURES as error:
        raise ConnectError(
            f"the adb server at {spelled(address)} doesn't answer: {error}"
        ) from error


def ask(address: tuple[str, int], request: str, limit: Deadline) -> str:
    """Ask a server for something that isn't a device's; raises what `FAILURES` names."""
    where = f"the adb server at {spelled(address)}"
    stream = Stream.connect(address, where, max(0.1, limit.remaining_s))
    try:
        patience = Patience(where, request, deadline=limit)
        stream.request(request.encode(), patience)
        size = stream.read_exactly(4, patience)
        refused = size == b"FAIL"  # some services say so only after they were accepted
        text = stream.read_exactly(
            int(stream.read_exactly(4, patience) if refused else size, 16), patience
        ).decode("utf-8", "replace")
        if refused:
            raise ServerRefused(text)
        return text
    finally:
        stream.close()


def ensure_server(address: tuple[str, int]) -> None:
    """Start an adb server of this machine where none runs.

    Raises:
        ConnectError: It can't be started, or it belongs to another machine.
    """
    if listens(address):
        return
    if address[0] not in _HERE:
        raise ConnectError(
            f"no adb server answers at {spelled(address)}: start one there (adb -a server)"
        )
    program = adb_program()
    _log.info("starting an adb server at %s with %s", spelled(address), program)
    # The server keeps running and would keep a pipe open, so its output goes to a file.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                [program, "-P", str(address[1]), "start-server"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_START_S,
                check=False,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConnectError(f"{program} start-server: {error}") from error
        output.seek(0)
        text = output.read().decode("utf-8", "replace").strip()
    if done.returncode != 0 or not listens(address):
        raise ConnectError(f"{program} start-server failed: {text}")


def adb_program() -> str:
    """Path of the `adb` program: on PATH, else the one that adbutils carries.

    Raises:
        ConnectError: There is none.
    """
    chosen = os.environ.get("ADBUTILS_ADB_PATH") or shutil.which("adb")
    if chosen:
        return chosen
    import adbutils  # a quarter of a second, for machines that have no adb

    try:
        return str(adbutils.adb_path())
    except adbutils.AdbError as error:
        raise ConnectError("there is no adb program: install Android's platform-tools") from error


def listens(address: tuple[str, int]) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection(address, timeout=3):
            return True
    except OSError:
        return False


def bring_online(address: tuple[str, int], serial: str, timeout_s: float) -> str:
    """Connect a TCP device that the server lists without being usable; return its state then.

    Whoever else connects the same device at this moment is waited for, and their success used.

    Args:
        address: The adb server.
        serial: `host:port` of the device.
        timeout_s: Limit for all of it.

    Raises:
        ConnectError: The device can't be reached there or isn't usable.
    """
    deadline = Deadline(timeout_s)
    lock = _connecting[address, serial]
    if not lock.acquire(timeout=max(0.1, deadline.remaining_s)):
        raise ConnectError(
            f"adb connect {serial}: another process is connecting it and gets no answer; try again"
        )
    try:
        state = state_of(address, serial)
        if state in CONNECTABLE:
            # A restart of the device leaves `offline`, which only a disconnect ends.
            _connect(address, serial, again=state == "offline", deadline=deadline)
            state = "device"
        return state
    finally:
        lock.release()


def forget(address: tuple[str, int], serial: str) -> None:
    """Let the server drop its connection to a TCP device that doesn't answer.

    After a break of the link it would wait for its own retransmission, up to minutes.
    """
    try:
        ask(address, f"host:disconnect:{serial}", Deadline(_LIST_S))
    except FAILURES as error:
        _log.debug("adb disconnect %s: %s", serial, error)


def _connect(address: tuple[str, int], serial: str, *, again: bool, deadline: Deadline) -> None:
    """Connect, and wait until the device is usable.

    While the server itself tries a silent address again it calls it connected and lets nobody
    else connect it; it drops its own try when asked, as soon as that ends. So it's asked often.
    """
    while True:
        try:
            if again:
                with contextlib.suppress(ServerRefused):  # it is gone already
                    ask(address, f"host:disconnect:{serial}", deadline)
            answer = ask(address, f"host:connect:{serial}", deadline)
        except FAILURES as error:
            raise ConnectError(
                f"adb connect {serial}: no answer ({error}); is it on and reachable?"
            ) from error
        # The server reports success for failures too: only the text shows them.
        if not answer.startswith(("connected to", "already connected to")):
            raise ConnectError(f"adb connect {serial}: {answer.strip()}")
        state = _settled(address, serial, Deadline(min(_SETTLE_S, max(0.0, deadline.remaining_s))))
        if state == "device":
            return
        if state == "unauthorized":
            raise refusal(serial, state)
        if deadline.passed:
            raise ConnectError(
                f"adb device {serial} is {state}: the adb server calls it connected, which it says "
                "for two minutes while it tries an address that was silent: wait, or restart the "
                "server (adb kill-server)",
                state=state,
                remedy="wait two minutes, or restart the adb server (adb kill-server)",
            )
        again = True


def _settled(address: tuple[str, int], serial: str, limit: Deadline) -> str:
    """State of a device once it is one that lasts, or at the limit."""
    while True:
        state = state_of(address, serial)
        if state not in CONNECTABLE or limit.passed:
            return state
        time.sleep(0.05)


def state_of(address: tuple[str, int], serial: str) -> str:
    """State of a device in the server's list; `absent` when it isn't there.

    Raises:
        ConnectError: The server doesn't answer.
    """
    rows = attached(spelled(address), start=False)
    states = [row.state for row in rows if row.path == serial]
    states = states or [row.state for row in rows if row.serial == serial]
    return "duplicated" if len(states) > 1 else next(iter(states), "absent")


def unusable(serial: str, state: str) -> str:
    """One sentence: what is wrong with a device in this state, and the remedy."""
    return f"adb device {serial} is {state}: {AttachedDevice(serial, state).remedy}"


def refusal(serial: str, state: str) -> ConnectError:
    """Error about a device in a state in which it can't be used."""
    remedy = AttachedDevice(serial, state).remedy
    return ConnectError(unusable(serial, state), state=state, remedy=remedy)


def spelled(address: tuple[str, int]) -> str:
    """Address as people write it."""
    return f"{address[0]}:{address[1]}"
