"""Faults made for real under a transport: what is raised, how soon, and that work goes on after."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.errors import (
    ConnectError,
    DeviceLost,
    FarmError,
    StorageFull,
    TransportError,
    TransportTimeout,
)
from farm.protocols import Transport
from farm.transports import open as open_transport
from tests.lab.machine import Machine
from tests.lab.phone import AdbServer

pytestmark = pytest.mark.lab

MIB = 1 << 20
#: Frozen or gone devices are noticed after 10 s; the rest is for a busy machine.
NOTICED_S = 14.0
SPIN = Command(("sh", "-c", "while :; do sleep 1; done"), timeout_s=120)
Factory = Callable[..., Machine]


@pytest.fixture(params=["adb", "ssh"])
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Machine:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    factory: Factory = request.getfixturevalue(f"{request.param}_device")
    return factory(disk_mb=128)


@pytest.fixture
def transport(machine: Machine) -> Iterator[Transport]:
    made = open_transport(machine.entry)
    try:
        assert answers(made)
        yield made
    finally:
        made.close()


def answers(made: Transport) -> bool:
    """Wait for a device that has just started: its adbd may still be coming up on busy cores."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return made.run(Command(("true",))).ok
        except ConnectError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


class Call:
    """A blocking call in a thread of its own, and what became of it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.error: FarmError | None = None
        self.ended_at = 0.0
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except FarmError as error:
            self.error = error
        self.ended_at = time.monotonic()

    def outcome(self, since: float, within_s: float = NOTICED_S + 1) -> FarmError | None:
        """Wait for the end; it must come in time."""
        self._thread.join(within_s + 10)
        assert not self._thread.is_alive(), "still waiting"
        assert self.ended_at - since <= within_s
        return self.error


def place(machine: Machine) -> str:
    return "/data/local/tmp/file" if machine.entry.transport == "adb" else "/root/file"


def file_of(tmp_path: Path, size: int) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    return path


@contextmanager
def slow_push(
    machine: Machine, transport: Transport, source: Path, stall_s: float = 12.0
) -> Iterator[Call]:
    """Be in the middle of a push, with about 8 of 24 MiB gone."""
    machine.network.limit(6e6)
    done: list[int] = []
    call = Call(
        lambda: transport.push(source, place(machine), progress=done.append, stall_s=stall_s)
    )
    while not done or done[-1] < 10 * MIB:
        assert call.ended_at == 0.0, call.error
        time.sleep(0.01)
    yield call


def resume(machine: Machine, source: Path, *, at_least: int) -> None:
    """What arrived is there, and a push of the rest makes the file whole."""
    again = open_transport(machine.entry)
    try:
        # The answer comes after all that was on its way when the connection broke.
        again.stat(place(machine))
        size = settled_size(machine, at_least)
        found = again.stat(place(machine))
        assert found is not None
        assert found.size_bytes == size
        again.push(source, place(machine), offset=size)
        assert machine.host_path(place(machine)).read_bytes() == source.read_bytes()
    finally:
        again.close()


def settled_size(machine: Machine, at_least: int) -> int:
    """Size of the file once nothing on the device works on it any more."""
    path = machine.host_path(place(machine))
    size, deadline = -1, time.monotonic() + 20
    while time.monotonic() < deadline:
        now = path.stat().st_size if path.exists() else -1
        if now >= at_least and now == size:
            return size
        size = now
        time.sleep(0.3)
    pytest.fail(f"{path} has {size} bytes, less than {at_least}")


def nothing_left(machine: Machine) -> bool:
    """Whether the device runs no program of a transport any more."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not (machine.runs("farm-pid") or machine.runs("sleep 1")):
            return True
        time.sleep(0.1)
    return False


def test_a_frozen_device_is_noticed_during_a_run(machine: Machine, transport: Transport) -> None:
    call = Call(lambda: transport.run(SPIN))
    time.sleep(0.5)
    machine.freeze()
    frozen = time.monotonic()
    assert isinstance(call.outcome(frozen), DeviceLost)
    machine.thaw()
    assert transport.run(Command(("echo", "back"))).stdout == b"back\n"


def test_a_frozen_device_is_noticed_at_a_first_call(machine: Machine) -> None:
    machine.freeze()
    frozen = time.monotonic()
    fresh = open_transport(machine.entry)
    call = Call(lambda: fresh.run(Command(("true",), timeout_s=60)))
    assert isinstance(call.outcome(frozen), TransportError)
    machine.thaw()
    assert fresh.run(Command(("true",))).ok
    fresh.close()


def test_a_frozen_device_is_noticed_during_a_push(
    machine: Machine, transport: Transport, tmp_path: Path
) -> None:
    source = file_of(tmp_path, 24 * MIB)
    with slow_push(machine, transport, source) as call:
        machine.freeze()
        frozen = time.monotonic()
        assert isinstance(call.outcome(frozen), TransportError)
    machine.network.limit(None)
    machine.thaw()
    resume(machine, source, at_least=1)
    assert nothing_left(machine)


def test_closing_a_frozen_device_takes_less_than_a_second(
    machine: Machine, transport: Transport
) -> None:
    call = Call(lambda: transport.run(SPIN))
    time.sleep(0.5)
    machine.freeze()
    time.sleep(0.2)
    started = time.monotonic()
    transport.close()
    assert isinstance(call.outcome(started, within_s=1.0), DeviceLost)
    assert time.monotonic() - started < 1.5


def test_a_partition_is_noticed_during_a_run(machine: Machine, transport: Transport) -> None:
    call = Call(lambda: transport.run(SPIN))
    time.sleep(0.5)
    machine.network.partition()
    cut = time.monotonic()
    assert isinstance(call.outcome(cut), DeviceLost)
    machine.network.heal()
    assert transport.run(Command(("true",), timeout_s=30)).ok


def test_a_push_broken_by_a_partition_goes_on_where_it_was(
    machine: Machine, transport: Transport, tmp_path: Path
) -> None:
    source = file_of(tmp_path, 24 * MIB)
    with slow_push(machine, transport, source) as call:
        machine.network.partition()
        cut = time.monotonic()
        assert isinstance(call.outcome(cut), TransportError)
    machine.network.limit(None)
    machine.network.heal()
    resume(machine, source, at_least=4 * MIB)


def test_a_short_break_of_the_link_is_survived(
    machine: Machine, transport: Transport, tmp_path: Path
) -> None:
    source = file_of(tmp_path, 24 * MIB)
    with slow_push(machine, transport, source) as call:
        machine.network.partition()
        time.sleep(3)
        machine.network.heal()
        machine.network.limit(None)
        assert call.outcome(time.monotonic(), within_s=30) is None
    assert machine.host_path(place(machine)).read_bytes() == source.read_bytes()


def test_a_push_that_close_broke_goes_on_where_it_was(
    machine: Machine, transport: Transport, tmp_path: Path
) -> None:
    source = file_of(tmp_path, 24 * MIB)
    with slow_push(machine, transport, source) as call:
        closed = time.monotonic()
        transport.close()
        assert isinstance(call.outcome(closed, within_s=1.0), DeviceLost)
    machine.network.limit(None)
    resume(machine, source, at_least=4 * MIB)
    assert nothing_left(machine)


def test_a_power_cut_is_noticed_during_a_run(machine: Machine, transport: Transport) -> None:
    call = Call(lambda: transport.run(SPIN))
    time.sleep(0.5)
    machine.kill()
    cut = time.monotonic()
    assert isinstance(call.outcome(cut), DeviceLost)
    with pytest.raises(TransportError):
        transport.run(Command(("true",), timeout_s=20))
    machine.start()
    assert transport.run(Command(("true",), timeout_s=30)).ok


def test_a_push_broken_by_a_power_cut_goes_on_where_it_was(
    machine: Machine, transport: Transport, tmp_path: Path
) -> None:
    source = file_of(tmp_path, 24 * MIB)
    with slow_push(machine, transport, source) as call:
        machine.kill()
        cut = time.monotonic()
        assert isinstance(call.outcome(cut), TransportError)
    machine.network.limit(None)
    machine.start()
    resume(machine, source, at_least=4 * MIB)


def test_a_restarted_daemon_costs_one_call_at_most(machine: Machine, transport: Transport) -> None:
    call = Call(lambda: transport.run(SPIN))
    time.sleep(0.5)
    machine.restart_daemon()
    restarted = time.monotonic()
    assert isinstance(call.outcome(restarted), DeviceLost)
    assert transport.run(Command(("true",), timeout_s=30)).ok


def test_a_disk_that_fills_up_half_way_is_named(
    machine: Machine, transport: Transport, tmp_path: Path
) -> None:
    source = file_of(tmp_path, 24 * MIB)
    machine.fill(leave_bytes=12 * MIB)
    with pytest.raises(StorageFull, match="No space left"):
        transport.push(source, place(machine))
    machine.unfill()
    transport.push(source, place(machine))
    assert machine.host_path(place(machine)).read_bytes() == source.read_bytes()
    assert nothing_left(machine)


def test_a_slow_link_is_no_stall(machine: Machine, transport: Transport, tmp_path: Path) -> None:
    source = file_of(tmp_path, 3 * MIB)
    machine.network.limit(500e3)
    started = time.monotonic()
    transport.push(source, place(machine))
    assert time.monotonic() - started > 4
    assert machine.host_path(place(machine)).read_bytes() == source.read_bytes()


def test_a_stall_has_its_own_limit(machine: Machine, transport: Transport, tmp_path: Path) -> None:
    source = file_of(tmp_path, 24 * MIB)
    with slow_push(machine, transport, source, stall_s=2.0) as call:
        machine.freeze()
        frozen = time.monotonic()
        assert isinstance(call.outcome(frozen, within_s=6.0), TransportTimeout)
    machine.thaw()


def test_lost_packets_are_survived(machine: Machine, transport: Transport, tmp_path: Path) -> None:
    source = file_of(tmp_path, MIB)
    machine.network.lose(0.05)
    transport.push(source, place(machine))
    assert machine.host_path(place(machine)).read_bytes() == source.read_bytes()


def test_a_killed_adb_server_costs_one_call_at_most(adb_device: Factory, tmp_path: Path) -> None:
    server = AdbServer()
    machine = adb_device(server=server)
    transport = open_transport(machine.entry)
    try:
        call = Call(lambda: transport.run(SPIN))
        time.sleep(0.5)
        server.kill()
        killed = time.monotonic()
        assert isinstance(call.outcome(killed), DeviceLost)
        assert transport.run(Command(("true",), timeout_s=30)).ok
    finally:
        transport.close()
        server.kill()


def test_a_push_broken_by_the_adb_server_goes_on_where_it_was(
    adb_device: Factory, tmp_path: Path
) -> None:
    server = AdbServer()
    machine = adb_device(server=server, disk_mb=128)
    transport = open_transport(machine.entry)
    source = file_of(tmp_path, 24 * MIB)
    try:
        with slow_push(machine, transport, source) as call:
            server.kill()
            killed = time.monotonic()
            assert isinstance(call.outcome(killed), TransportError)
        machine.network.limit(None)
        resume(machine, source, at_least=4 * MIB)
    finally:
        transport.close()
        server.kill()


def test_first_connections_to_one_phone_at_once_all_succeed(adb_device: Factory) -> None:
    machine = adb_device()
    opened = [open_transport(machine.entry) for _ in range(6)]
    command = Command(("true",), timeout_s=15)
    calls = [Call(partial(made.run, command)) for made in opened]
    since = time.monotonic()
    assert [call.outcome(since) for call in calls] == [None] * 6
    for made in opened:
        made.close()


def test_phones_that_cannot_be_used_name_state_and_remedy(
    adb_device: Factory, adb_server: AdbServer
) -> None:
    machine = adb_device()
    absent = type(machine.entry)("ghost", "adb", serial="NOSUCH", adb_server=adb_server.address)
    with pytest.raises(ConnectError, match=r"ghost: adb device NOSUCH is absent: plug it in"):
        open_transport(absent).run(Command(("true",)))
    machine.kill()
    started = time.monotonic()
    with pytest.raises(ConnectError, match=r"adb connect .*:5555"):
        open_transport(machine.entry).run(Command(("true",)))
    assert time.monotonic() - started < NOTICED_S
