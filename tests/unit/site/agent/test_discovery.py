from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

import runners
from farm import transports
from farm.core.device import Device, DeviceEntry, DeviceFacts
from farm.core.errors import ConfigError, ConnectError, DeviceLost
from farm.host.source_tree import tree_sha256
from farm.protocols import Transport
from farm.site.agent.discovery import discover_adb, usb_phone_attached
from farm.site.agent.inventory import _by_identity, look
from farm.site.context import SiteContext
from farm.store.objects import ContentStore
from farm.transports.adb_devices import AttachedDevice


@pytest.mark.parametrize(
    ("values", "found"), [(("ff", "42", "01"), True), (("ff", "42", "03"), False), (("08",), False)]
)
def test_usb_phone_is_known_by_its_interface(
    tmp_path: Path, values: tuple[str, ...], found: bool
) -> None:
    interface = tmp_path / "1-1:1.0"
    interface.mkdir()
    leaves = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    for leaf, value in zip(leaves, values, strict=False):
        (interface / leaf).write_text(f"{value}\n")
    (tmp_path / "1-1").mkdir()
    assert usb_phone_attached(tmp_path) is found


def test_variables_of_adb_that_lead_nowhere_are_no_absence_of_phones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", "localabstract:adb")
    context = SiteContext(tmp_path, ContentStore(tmp_path), transports.open, runners.find)
    with pytest.raises(ConfigError, match="ADB_SERVER_SOCKET"):
        look([], partial(discover_adb, [], ""), context, 1.0)


_VARIABLES = ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT")


@pytest.fixture
def look_for_phones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Sequence[Device]]:
    """Look for phones under adb's variables; none is plugged in."""
    context = SiteContext(tmp_path, ContentStore(tmp_path), transports.open, runners.find)

    def found(plugged: bool = False, **variables: str) -> Sequence[Device]:
        for name in _VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("farm.site.agent.discovery.usb_phone_attached", lambda: plugged)
        return look([], partial(discover_adb, [], "rack2"), context, 1.0, "rack2")

    return found


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_named_adb_server_that_is_down_is_no_absence_of_phones(
    look_for_phones: Callable[..., Sequence[Device]],
) -> None:
    """A row that can't be used: a run over every device misses it, instead of passing."""
    port = closed_port()
    for variables, name, where in (
        ({"ADB_SERVER_SOCKET": f"tcp:127.0.0.1:{port}"}, "ADB_SERVER_SOCKET", f"127.0.0.1:{port}"),
        (
            {"ANDROID_ADB_SERVER_ADDRESS": "127.0.0.2", "ANDROID_ADB_SERVER_PORT": str(port)},
            "ANDROID_ADB_SERVER_ADDRESS",
            f"127.0.0.2:{port}",
        ),
    ):
        (row,) = look_for_phones(**variables)
        assert (row.name, row.state, row.usable) == ("adb-server@rack2", "offline", False)
        assert f"no adb server answers at {where}, which {name} names" in row.reason
        assert f"unset {name}" in row.remedy


def test_a_port_of_this_machine_without_a_server_is_said_and_no_row(
    look_for_phones: Callable[..., Sequence[Device]], caplog: pytest.LogCaptureFixture
) -> None:
    """There a server is started once a phone is plugged in, by adb and by farm."""
    port = closed_port()
    assert look_for_phones(ANDROID_ADB_SERVER_PORT=str(port)) == []
    assert f"no adb server listens at 127.0.0.1:{port}" in caplog.text
    named = look_for_phones(
        ANDROID_ADB_SERVER_ADDRESS="localhost", ANDROID_ADB_SERVER_PORT=str(port)
    )
    assert named == []


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad request\r\n", b""])
def test_what_listens_and_is_no_adb_server_is_named(
    look_for_phones: Callable[..., Sequence[Device]], answer: bytes
) -> None:
    """Another program on its port, or one that says nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    if answer:
                        held[-1].sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        (row,) = look_for_phones(ANDROID_ADB_SERVER_PORT=str(port))
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for sock in held:
        sock.close()
    assert row.state == "offline"
    assert "phones were not looked for" in row.reason
    assert ("isn't the adb protocol" if answer else "didn't answer within") in row.reason


def test_a_phone_without_a_server_that_could_be_started_is_a_row(
    look_for_phones: Callable[..., Sequence[Device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADBUTILS_ADB_PATH", "/nonexistent/adb")
    (row,) = look_for_phones(plugged=True, ANDROID_ADB_SERVER_PORT=str(closed_port()))
    assert "/nonexistent/adb start-server" in row.reason


def test_a_probe_that_a_restart_of_the_adb_server_broke_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program ended it: that is no fault of the phone, which would read as missing."""
    monkeypatch.setattr("farm.site.agent.inventory._AGAIN_S", 0.0)
    opened: list[str] = []

    def unlucky(entry: DeviceEntry) -> Transport:
        opened.append(entry.name)
        fault = {"host_fault": "adb server"} if entry.name == "phone" else {}
        raise DeviceLost("the adb server ended meanwhile", **fault)

    context = SiteContext(tmp_path, ContentStore(tmp_path), unlucky, runners.find)
    entries = [DeviceEntry("phone", "adb", serial="1"), DeviceEntry("other", "adb", serial="2")]
    found = look(entries, None, context, 5.0)
    assert {device.state for device in found} == {"offline"}
    assert (opened.count("phone"), opened.count("other")) == (5, 1)


def test_a_wireless_phone_goes_by_its_own_serial_number(tmp_path: Path) -> None:
    """Its address is another one tomorrow: baselines and quarantine go by the name."""
    wireless = seen("192.168.1.20:37123", "R58N1")
    assert _by_identity(wireless, {"192.168.1.20:37123"}).name == "R58N1"
    assert _by_identity(wireless, {"R58N1"}).name == "192.168.1.20:37123"
    cable = seen("R58N2", "0123")
    assert _by_identity(cable, set()) is cable


def seen(serial: str, identity: str) -> Device:
    entry = DeviceEntry(serial, "adb", serial=serial)
    return Device(entry, DeviceFacts(identity, "arm64-v8a"))


def test_discovered_phones_have_names_without_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    serial = "adb-2A0F-bbQ1yz (2)._adb-tls-connect._tcp"
    twins = [AttachedDevice("0123", "device", path=f"usb:1-{n}") for n in (1, 2)]
    rows = (AttachedDevice(serial, "device"), *twins)
    monkeypatch.setattr("farm.site.agent.discovery.attached", lambda **_: rows)
    named = [DeviceEntry("left", "adb", serial="usb:1-1")]
    found = discover_adb(named, "")
    entries = [one for one in found if isinstance(one, DeviceEntry)]
    assert [(entry.name, entry.serial) for entry in entries] == [
        ("adb-2A0F-bbQ1yz(2)._adb-tls-connect._tcp", serial),
        ("usb:1-2", "usb:1-2"),
    ]


def test_what_adb_itself_refuses_is_not_probed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The list is the server's word: a device that it can't use is no ready one."""
    rows = (
        AttachedDevice("1", "unauthorized"),
        AttachedDevice("2", "noperm"),
        *(AttachedDevice("3", "device") for _ in range(2)),
        AttachedDevice("4", "offline"),
    )
    monkeypatch.setattr("farm.site.agent.discovery.attached", lambda **_: rows)
    probed = []

    def refuse(entry: DeviceEntry) -> Transport:
        probed.append(entry.name)
        raise ConnectError("no")

    context = SiteContext(tmp_path, ContentStore(tmp_path), refuse, runners.find)
    found = {device.name: device for device in look([], partial(discover_adb, [], ""), context, 5)}
    assert {name: device.state for name, device in found.items()} == {
        "1": "unauthorized",
        "2": "noperm",
        "3": "duplicated",
        "4": "offline",
    }
    assert probed == ["4"]
    assert "accept the USB debugging question" in found["1"].reason


def test_tree_hash_follows_content_and_names(tmp_path: Path) -> None:
    def tree(name: str, files: dict[str, str]) -> str:
        root = tmp_path / name
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return tree_sha256(root)

    base = {"farm/a.py": "1", "runners/native/x.cpp": "2", "models/m.py": "3"}
    first = tree("first", base)
    assert tree("same", base) == first
    assert tree("ignored", base | {"farm/a.pyc": "x", "tests/t.py": "y"}) == first
    assert tree("content", base | {"farm/a.py": "2"}) != first
    assert tree("name", {"farm/b.py": "1", **{k: base[k] for k in list(base)[1:]}}) != first
