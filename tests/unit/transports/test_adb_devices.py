from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.errors import ConfigError, ConnectError
from farm.transports.adb_devices import (
    AttachedDevice,
    attached,
    bring_online,
    ensure_server,
    listens,
    parse_devices,
    server_address,
    unusable,
    usable_rows,
)

SERIAL = "10.0.0.17:5555"
LIST = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R5CT10ABCDE            device usb:1-4.2 product:e1sxxx model:SM_S921B device:e1s transport_id:7
10.0.0.17:5555         device product:husky model:Pixel_8_Pro device:husky transport_id:12
emulator-5554          offline transport_id:3
0A041FDD4000AB         unauthorized usb:2-1 transport_id:4
HT7A1 no permissions (user me is not in the plugdev group); see [http://x.y/z] usb:5-4.4.1
ABC\tno permissions (missing udev rules?); see [http://x.y/z]
SHORT\tdevice
Z9 recovery product:x

"""


def test_every_row_of_a_list_is_read() -> None:
    rows = parse_devices(LIST)
    assert [(row.serial, row.state) for row in rows] == [
        ("R5CT10ABCDE", "device"),
        ("10.0.0.17:5555", "device"),
        ("emulator-5554", "offline"),
        ("0A041FDD4000AB", "unauthorized"),
        ("HT7A1", "no permissions"),
        ("ABC", "no permissions"),
        ("SHORT", "device"),
        ("Z9", "recovery"),
    ]
    assert rows[0] == AttachedDevice("R5CT10ABCDE", "device", "SM_S921B", "e1sxxx", "usb:1-4.2")
    assert rows[6].model is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("adb-2A0F-bbQ1yz (2)._adb-tls-connect._tcp device product:x model:Y transport_id:4",
         ("adb-2A0F-bbQ1yz (2)._adb-tls-connect._tcp", "device", None)),
        ("(no serial number)     no permissions; see [http://x.y/z.html] usb:1-2",
         ("usb:1-2", "no permissions", "usb:1-2")),
        ("(no serial number)     device usb:1-2 product:x", ("usb:1-2", "device", "usb:1-2")),
        ("(no serial number)     device product:x",
         ("(no serial number)", "without a serial number", None)),
        ("????????????\tno permissions", ("????????????", "no permissions", None)),
        # A state of a newer adb.
        ("R5CT10ABCDE            hibernating usb:1-4 transport_id:1",
         ("R5CT10ABCDE", "hibernating", "usb:1-4")),
        ("R5CT10ABCDE\thibernating", ("R5CT10ABCDE", "hibernating", None)),
        ("[fe80::1%wlan0]:5555   device product:x", ("[fe80::1%wlan0]:5555", "device", None)),
        ("My Board 12            offline usb:1-2", ("My Board 12", "offline", "usb:1-2")),
        ("R5CT10ABCDE device usb:1-4 prod", ("R5CT10ABCDE", "device", "usb:1-4")),
        ("X sideload", ("X", "sideload", None)),
    ],
)  # fmt: skip
def test_no_row_vanishes(line: str, expected: tuple[str, str, str | None]) -> None:
    (row,) = parse_devices(f"List of devices attached\n{line}\n")
    assert (row.serial, row.state, row.path) == expected
    assert bool(row.remedy) is (row.state != "device")


def test_devices_with_one_serial_number_go_by_their_place() -> None:
    same = AttachedDevice("0123456789ABCDEF", "device", path="usb:1-1")
    far = replace(same, path=None)
    other = AttachedDevice("Z9", "device", path="usb:1-9")
    found = usable_rows([same, replace(same, path="usb:1-2"), far, other])
    assert [(row.serial, row.state) for row in found] == [
        ("usb:1-1", "device"),
        ("usb:1-2", "device"),
        ("0123456789ABCDEF", "duplicated"),
        ("Z9", "device"),
    ]
    assert "USB path" in found[2].remedy


def test_a_name_of_wifi_debugging_has_its_own_remedy() -> None:
    assert "wireless debugging" in unusable("adb-2A0F-x._adb-tls-connect._tcp", "absent")


@pytest.mark.parametrize("cut", range(len(LIST)))
def test_a_list_cut_off_anywhere_is_no_error(cut: int) -> None:
    rows = parse_devices(LIST[:cut])
    assert len(rows) <= 8


@pytest.mark.parametrize(
    "text",
    [
        "", "\n\n", "error: cannot connect to daemon", "adb: no devices", "\x00\x01 \x02", "word",
        # What adb 1.0.31 to 1.0.41 say beside a list, or in place of one.
        "adb server version (36) doesn't match this client (41); killing...",
        "adb server is out of date.  killing...", "ADB server didn't ACK",
        "Full server startup log: /tmp/adb.1000.log", "Server had pid: 123",
        "--- adb starting (pid 123) ---", "cannot connect to daemon at tcp:5037: refused",
        "failed to check server version: protocol fault (couldn't read status): reset by peer",
        "could not read ok from ADB Server", "cannot bind 'tcp:5037': Address already in use",
        "- waiting for device -", "protocol fault (no status)", "failed to start daemon",
        "daemon not running; starting now at tcp:5037", "adb.exe: device unauthorized.",
        "This adb server's $ADB_VENDOR_KEYS is not set", "/usr/bin/adb: line 3: device not found",
        "device offline", "more than one device", "no devices found",
        "adb E 05-01 12:00:00 1 1 usb_libusb.cpp:1] failed to open device",
        "libusb: error [op_get_active_config_descriptor] device unconfigured",
    ],
)  # fmt: skip
def test_what_is_no_list_has_no_rows(text: str) -> None:
    assert parse_devices(text) == ()


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("unauthorized", "accept the USB debugging question"),
        ("offline", "replug"),
        ("no permissions", "udev rule"),
        ("recovery", "adb reboot"),
        ("absent", "turn on USB debugging"),
    ],
)
def test_each_bad_state_names_its_remedy(state: str, remedy: str) -> None:
    text = unusable("R5CT", state)
    assert text.startswith(f"adb device R5CT is {state}: ")
    assert remedy in text


def test_a_good_state_needs_no_remedy() -> None:
    assert AttachedDevice("x", "device").remedy == ""


def test_the_server_is_found_as_adb_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert server_address(None) == ("127.0.0.1", 5037)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "6000")
    assert server_address(None) == ("127.0.0.1", 6000)
    monkeypatch.setenv("ANDROID_ADB_SERVER_ADDRESS", "rack2")
    assert server_address(None) == ("rack2", 6000)
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:rack3:7000")
    assert server_address(None) == ("rack3", 7000)
    assert server_address("10.0.0.1:5038") == ("10.0.0.1", 5038)
    assert server_address("[::1]:5038") == ("::1", 5038)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ADB_SERVER_SOCKET": "tcp:5999"}, ("127.0.0.1", 5999)),
        ({"ADB_SERVER_SOCKET": "tcp:[::1]:5999"}, ("::1", 5999)),
        ({"ADB_SERVER_SOCKET": ""}, ("127.0.0.1", 5037)),
        ({"ANDROID_ADB_SERVER_PORT": ""}, ("127.0.0.1", 5037)),
        ({"ANDROID_ADB_SERVER_ADDRESS": "", "ANDROID_ADB_SERVER_PORT": "6000"},
         ("127.0.0.1", 6000)),
        ({"ANDROID_ADB_SERVER_ADDRESS": "::1"}, ("::1", 5037)),
    ],
)  # fmt: skip
def test_adbs_own_variables_mean_what_adb_means(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], expected: tuple[str, int]
) -> None:
    for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert server_address(None) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ADB_SERVER_SOCKET", "localabstract:adb"),
        ("ADB_SERVER_SOCKET", "localfilesystem:/run/adb.sock"),
        ("ADB_SERVER_SOCKET", "5037"),
        ("ANDROID_ADB_SERVER_PORT", "abc"),
        ("ANDROID_ADB_SERVER_PORT", "99999"),
    ],
)
def test_a_variable_that_leads_to_no_server_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        server_address(None)


@pytest.mark.parametrize("text", ["rack2", "rack2:", "rack2:adb", "rack2:0", "rack2:99999"])
def test_a_malformed_server_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="isn't host:port"):
        server_address(text)


@pytest.fixture
def mute_server() -> Iterator[tuple[str, int]]:
    """Something that accepts a connection, answers garbage and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 400\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()
        while thread.is_alive():
            listens(server.getsockname())
        thread.join()


def test_a_port_that_is_no_adb_server_is_named(mute_server: tuple[str, int]) -> None:
    host, port = mute_server
    with pytest.raises(ConnectError, match=f"adb server at {host}:{port} doesn't answer"):
        attached(f"{host}:{port}")


def test_a_server_of_another_machine_is_not_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # An address of this machine that isn't called so.
    with pytest.raises(ConnectError, match=f"no adb server answers at 127.0.0.2:{port}: start one"):
        ensure_server(("127.0.0.2", port))


def test_an_adb_that_fails_to_start_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "adb"
    program.write_text('#!/bin/sh\n[ "$1" = version ] && exit 0\necho "cannot bind" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(program))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectError, match="start-server failed: cannot bind"):
        ensure_server(("127.0.0.1", port))


@contextmanager
def trying_server(*, lets_go_after: int) -> Iterator[tuple[tuple[str, int], list[str]]]:
    """An adb server that itself tries a silent address, and calls it connected meanwhile.

    It lets go of its own try once it was told so often to disconnect.
    """
    asked: list[str] = []

    def answer(request: str) -> str:
        asked.append(request)
        if request == "host:devices-l":
            done = asked.count(f"host:disconnect:{SERIAL}") >= lets_go_after
            return f"{SERIAL} {'device' if done else 'offline'} transport_id:1\n"
        return f"{'already connected to' if 'host:connect' in request else 'disconnected'} {SERIAL}"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            size = self.rfile.read(4)
            if size:
                said = answer(self.rfile.read(int(size, 16)).decode()).encode()
                self.wfile.write(b"OKAY%04x" % len(said) + said)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield ("127.0.0.1", int(server.server_address[1])), asked
        finally:
            server.shutdown()
            thread.join()


def test_a_server_that_tries_an_address_itself_is_asked_until_it_lets_go() -> None:
    with trying_server(lets_go_after=2) as (address, asked):
        assert bring_online(address, SERIAL, 10.0) == "device"
    assert [word for word in asked if word != "host:devices-l"] == [
        f"host:disconnect:{SERIAL}",
        f"host:connect:{SERIAL}",
    ] * 2


def test_a_server_that_does_not_let_go_is_named_with_the_remedy() -> None:
    with (
        trying_server(lets_go_after=99) as (address, _),
        pytest.raises(ConnectError, match=r"is offline: .* restart the server \(adb kill-server\)"),
    ):
        bring_online(address, SERIAL, 0.3)
