"""Calls into a transport while a fault is made: what became of them, and of the file."""

from __future__ import annotations

import filecmp
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.errors import ConnectError, FarmError
from farm.protocols import Transport
from farm.transports import open as open_transport
from tests.lab.machine import Machine
from tests.pace import slack

MIB = 1 << 20
#: Frozen or gone devices are noticed after so long.
NOTICED_S = 10.0
SPIN = Command(("sh", "-c", "while :; do sleep 1; done"), timeout_s=120)


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


@contextmanager
def connected(machine: Machine) -> Iterator[Transport]:
    """An open transport to a device that answers."""
    made = open_transport(machine.entry)
    try:
        assert answers(made)
        yield made
    finally:
        made.close()


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

    def outcome(self, since: float, within_s: float | None = None) -> FarmError | None:
        """Wait for the end; it must come in time."""
        within_s = NOTICED_S + 5 * slack() if within_s is None else within_s
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


def arrived(machine: Machine, source: Path) -> bool:
    """Whether the device has the file; large ones that differ aren't worth an explanation."""
    return filecmp.cmp(machine.host_path(place(machine)), source, shallow=False)


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
        assert arrived(machine, source)
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
