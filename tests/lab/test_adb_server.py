"""An adb server on another machine: named by the inventory, or by adb's own variable."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.device import DeviceEntry, Inventory
from farm.core.errors import ConnectError, DeviceLost
from farm.core.events import JobFinished
from farm.core.rules.health import is_infrastructure
from farm.core.runtime import LaunchRequest, Measure
from farm.planning.devices import find_entry, survey
from farm.site.context import Limits
from farm.transports import open as open_transport
from farm.transports.adb_devices import attached
from tests.contract.site_bench import SiteBench, make_home
from tests.contract.toy_runner import GOOD
from tests.lab.calls import Call
from tests.lab.host import find, lab_dir, reap, spawn
from tests.lab.machine import Machine
from tests.lab.phone import AdbServer

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


def test_a_wireless_phone_keeps_its_name_while_its_address_changes(
    phone: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discovered under its own serial number, by which an entry and every command may name it."""
    server = str(phone.entry.adb_server)
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:{server}")
    first = open_transport(phone.entry)  # connects it
    assert first.run(Command(("true",))).ok
    first.close()
    named = open_transport(DeviceEntry("mine", "adb", serial=phone.name))
    assert named.run(Command(("getprop", "ro.serialno"))).text.strip() == phone.name
    named.close()
    inventory = Inventory(entries=(), adb_auto=True, local=False)
    assert find_entry(inventory, phone.name).serial == phone.entry.serial
    found = {device.name for device in survey(inventory, "", make_home(tmp_path), 15.0)}
    assert phone.name in found
    assert phone.entry.serial not in found


@pytest.mark.parametrize(("every_s", "sleep_s", "launches"), [(2.0, 9, 1), (0.9, 0.1, 20)])
def test_a_server_restarted_again_and_again_costs_no_job(
    adb_device: Callable[..., Machine],
    tmp_path: Path,
    every_s: float,
    sleep_s: float,
    launches: int,
) -> None:
    """As another version of adb does, within a launch and between many: the job goes on."""
    server = AdbServer()
    phone = adb_device(server=server)
    ended = threading.Event()

    def fight() -> None:
        while not ended.wait(every_s):
            server.kill()
            time.sleep(0.3)
            server.start()

    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(phone.entry,), limits=Limits(reconnect_s=4.0))
        measures = (Measure("tg64", 0, 64, 0, 1, 0),)
        requests = (LaunchRequest(1, measures=measures, timeout_s=60.0),) * launches
        model = f"sleep {sleep_s}\n{GOOD}"
        await bench.start(bench.job(model, device=phone.name, launches=requests))
        await bench.until_stage("measure")
        enemy = threading.Thread(target=fight)
        enemy.start()
        try:
            finished = (await bench.events(limit_s=120.0))[-1]
        finally:
            ended.set()
            enemy.join()
        assert isinstance(finished, JobFinished)
        assert finished.error is None, finished.error
        assert finished.result is not None
        assert len(finished.result.launches) == launches
        await bench.agent.close()

    try:
        asyncio.run(scenario())
        transport = open_transport(phone.entry)
        call = Call(lambda: transport.run(Command(("sleep", "30"), timeout_s=40)))
        while not phone.runs("sleep 30"):
            time.sleep(0.05)
        server.kill()
        error = call.outcome(time.monotonic())
        assert isinstance(error, DeviceLost)
        assert "the adb server at 127.0.0.1" in error.message
        assert "use one version of adb" in str(error.context["remedy"])
        assert not is_infrastructure(error)
        transport.close()
    finally:
        server.kill()
