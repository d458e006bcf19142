"""An adb server on another machine: named by the inventory, or by adb's own variable."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.errors import ConnectError
from farm.transports import open as open_transport
from farm.transports.adb_devices import attached
from tests.lab.host import find, lab_dir, reap, spawn
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

_PORT = 5038


@pytest.fixture
def phone(adb_device: Callable[..., Machine]) -> Machine:
    return adb_device()


@pytest.fixture
def remote(phone: Machine, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A second adb server, in the phone's network: an address that isn't this machine's."""
    inside = (find("nsenter") or "nsenter", f"--net=/run/netns/{phone.network.namespace}")
    words = (find("adb") or "adb", "-a", "-P", str(_PORT), "nodaemon", "server")
    env = {**os.environ, "HOME": str(lab_dir() / "adb-home"), "ADB_MDNS": "0"}
    pid = spawn([*inside, *words], tmp_path / "log", env=env)
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection((phone.address, _PORT), timeout=1):
                break
        except OSError:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
    yield f"{phone.address}:{_PORT}", pid
    reap(pid)


def test_phone_of_a_remote_adb_server(
    phone: Machine,
    remote: tuple[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, pid = remote
    assert phone.entry.adb_server != address
    entry = replace(phone.entry, adb_server=address)
    (tmp_path / "file").write_bytes(os.urandom(3 << 20))
    transport = open_transport(entry)
    transport.push(tmp_path / "file", "/data/local/tmp/file")
    assert phone.host_path("/data/local/tmp/file").read_bytes() == (tmp_path / "file").read_bytes()
    assert transport.run(Command(("getprop", "ro.serialno"))).text.strip() == phone.name
    transport.close()
    assert phone.entry.serial in {row.serial for row in attached(address)}

    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:{address}")
    transport = open_transport(replace(phone.entry, adb_server=None))
    assert transport.run(Command(("true",))).ok

    reap(pid)
    with pytest.raises(ConnectError, match=rf"no adb server answers at {address}: start one there"):
        transport.run(Command(("true",)))
    transport.close()
