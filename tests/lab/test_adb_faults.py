"""Faults that only adb has: its server, its own removing of files, the states of a phone."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from farm.clock import Deadline
from farm.core.command import Command
from farm.core.errors import ConnectError, DeviceLost, StorageFull, TransportError
from farm.transports import command_line
from farm.transports import open as open_transport
from tests.lab.calls import (
    MIB,
    NOTICED_S,
    SPIN,
    Call,
    arrived,
    connected,
    file_of,
    place,
    resume,
    slow_push,
)
from tests.lab.machine import Machine
from tests.lab.phone import AdbServer
from tests.pace import slack

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]


def test_a_push_over_a_file_needs_no_quick_shell(adb_device: Factory, tmp_path: Path) -> None:
    """The service that writes a file and the shell that guards it start by themselves."""
    machine = adb_device(disk_mb=128)
    with connected(machine) as transport:
        machine.slow_shell(0.3)
        for _ in range(2):
            source = file_of(tmp_path, 8 * MIB)
            transport.push(source, place(machine))
            assert arrived(machine, source)


def test_a_push_right_after_a_full_disk_meets_nothing_of_the_last(
    adb_device: Factory, tmp_path: Path
) -> None:
    machine = adb_device(disk_mb=128)
    with connected(machine) as transport:
        machine.slow_shell(0.3)
        source = file_of(tmp_path, 16 * MIB)
        machine.fill(leave_bytes=8 * MIB)
        with pytest.raises(StorageFull, match="No space left"):
            transport.push(source, place(machine))
        assert not machine.host_path(place(machine)).exists()
        machine.unfill()
        transport.push(source, place(machine))
        assert arrived(machine, source)


def test_a_full_disk_is_told_though_the_shell_that_guards_the_push_is_slow(
    adb_device: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard comes to look for the file when that is gone, and looks for very long."""
    machine = adb_device(disk_mb=128)
    line = command_line.guard_line
    monkeypatch.setattr(
        command_line, "guard_line", lambda *words: line(*words).replace(b"200000", b"99999999")
    )
    monkeypatch.setattr("farm.transports.adb.ANSWER_S", 3.0 * slack())
    with connected(machine) as transport:
        machine.slow_shell(0.3)
        machine.fill(leave_bytes=8 * MIB)
        with pytest.raises(StorageFull, match="No space left"):
            transport.push(file_of(tmp_path, 16 * MIB), place(machine))
        machine.unfill()
        deadline = Deadline(10)
        while any("hold)" in " ".join(words) for words in machine.processes().values()):
            assert not deadline.passed, "the guard still looks for the file"
            time.sleep(0.1)


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
    assert time.monotonic() - started < NOTICED_S + 4 * slack()
