"""Faults made for real under a transport: what is raised, how soon, and that work goes on after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.errors import DeviceLost, StorageFull, TransportError, TransportTimeout
from farm.protocols import Transport
from farm.transports import open as open_transport
from tests.lab.calls import (
    MIB,
    SPIN,
    Call,
    arrived,
    connected,
    file_of,
    nothing_left,
    place,
    resume,
    slow_push,
)
from tests.lab.machine import Machine
from tests.pace import slack

pytestmark = pytest.mark.lab

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
    with connected(machine) as made:
        yield made


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
    assert isinstance(call.outcome(started, within_s=slack()), DeviceLost)
    assert time.monotonic() - started < 1.5 * slack()


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
    assert arrived(machine, source)


def test_a_push_that_close_broke_goes_on_where_it_was(
    machine: Machine, transport: Transport, tmp_path: Path
) -> None:
    source = file_of(tmp_path, 24 * MIB)
    with slow_push(machine, transport, source) as call:
        closed = time.monotonic()
        transport.close()
        assert isinstance(call.outcome(closed, within_s=slack()), DeviceLost)
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
    assert arrived(machine, source)
    assert nothing_left(machine)


def test_a_slow_link_is_no_stall(machine: Machine, transport: Transport, tmp_path: Path) -> None:
    source = file_of(tmp_path, 3 * MIB)
    machine.network.limit(500e3)
    started = time.monotonic()
    transport.push(source, place(machine))
    assert time.monotonic() - started > 4
    assert arrived(machine, source)


def test_a_stall_has_its_own_limit(machine: Machine, transport: Transport, tmp_path: Path) -> None:
    source = file_of(tmp_path, 24 * MIB)
    with slow_push(machine, transport, source, stall_s=2.0) as call:
        machine.freeze()
        frozen = time.monotonic()
        assert isinstance(call.outcome(frozen, within_s=2.0 + 4 * slack()), TransportTimeout)
    machine.thaw()


def test_lost_packets_are_survived(machine: Machine, transport: Transport, tmp_path: Path) -> None:
    source = file_of(tmp_path, MIB)
    machine.network.lose(0.05)
    transport.push(source, place(machine))
    assert arrived(machine, source)
