from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.device import DeviceEntry
from farm.core.errors import (
    ConfigError,
    ConnectError,
    DeviceLost,
    StorageFull,
    TransportTimeout,
    UnknownName,
)
from farm.transports import TRANSPORTS
from farm.transports import open as open_transport
from farm.transports.sim import SimScript, parse_script


def sim(tmp_path: Path, **script: object) -> DeviceEntry:
    values = tuple((key, str(value)) for key, value in script.items())
    return DeviceEntry("sim1", "sim", root=str(tmp_path), sim=values)


def test_a_script_is_read_strictly(tmp_path: Path) -> None:
    entry = sim(tmp_path, latency_s=0.5, refuse="true", drop_after_bytes=7, hang_word="x")
    assert parse_script(entry) == SimScript(
        latency_s=0.5, refuse=True, drop_after_bytes=7, hang_word="x"
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("latency", "1", "sim.latency: unknown key; known: .*latency_s"),
        ("latency_s", "fast", "sim.latency_s: 'fast'"),
        ("latency_s", "-1", "is negative"),
        ("refuse", "1", "isn't true or false"),
        ("freeze_at_call", "1.5", "sim.freeze_at_call"),
    ],
)
def test_a_wrong_script_is_refused(tmp_path: Path, key: str, value: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_script(sim(tmp_path, **{key: value}))


def test_a_refused_connection(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="refuses"):
        open_transport(sim(tmp_path, refuse="true")).run(Command(("true",)))


def test_a_connection_that_drops_once_leaves_what_arrived(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1024
    (tmp_path / "file").write_bytes(data)
    transport = open_transport(sim(tmp_path, drop_after_bytes=100_000))
    target = tmp_path / "target"
    with pytest.raises(DeviceLost):
        transport.push(tmp_path / "file", str(target))
    arrived = target.stat().st_size
    assert 60_000 < arrived <= 100_000
    transport.push(tmp_path / "file", str(target), offset=arrived)
    assert target.read_bytes() == data


def test_a_frozen_device_answers_nothing_until_patience_ends(tmp_path: Path) -> None:
    transport = open_transport(sim(tmp_path, freeze_at_call=2))
    assert transport.run(Command(("true",))).ok
    started = time.monotonic()
    with pytest.raises(TransportTimeout):
        transport.run(Command(("true",), timeout_s=0.2))
    assert time.monotonic() - started >= 0.2


def test_close_ends_the_wait_for_a_frozen_device(tmp_path: Path) -> None:
    transport = open_transport(sim(tmp_path, freeze_at_call=1))
    threading.Timer(0.1, transport.close).start()
    with pytest.raises(DeviceLost):
        transport.run(Command(("true",), timeout_s=60))


def test_a_command_that_hangs(tmp_path: Path) -> None:
    transport = open_transport(sim(tmp_path, hang_word="decode"))
    assert transport.run(Command(("echo", "load"))).ok
    with pytest.raises(TransportTimeout):
        transport.run(Command(("echo", "decode"), timeout_s=0.1))


def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 200_000)
    transport = open_transport(sim(tmp_path, storage_bytes=100_000))
    with pytest.raises(StorageFull):
        transport.push(tmp_path / "file", str(tmp_path / "target"))


def test_latency_and_rate_take_their_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    transport = open_transport(sim(tmp_path, latency_s=0.1, bytes_per_s=1e6))
    started = time.monotonic()
    transport.push(tmp_path / "file", str(tmp_path / "target"))
    assert time.monotonic() - started >= 0.2


def test_an_unknown_transport_names_those_that_exist() -> None:
    with pytest.raises(UnknownName, match="known: adb, local, sim, ssh"):
        open_transport(DeviceEntry("x", "usb"))
    assert TRANSPORTS.names() == ("adb", "local", "sim", "ssh")


def test_an_entry_that_lacks_its_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="'x' needs `serial`"):
        open_transport(DeviceEntry("x", "adb"))
    with pytest.raises(ConfigError, match="'x' needs `host`"):
        open_transport(DeviceEntry("x", "ssh"))
