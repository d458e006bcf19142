"""A user of ssh on this machine with a home of its own, and a board to log in to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.device import DeviceEntry
from farm.transports import open as open_transport
from tests.lab.machine import Machine

Factory = Callable[..., Machine]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, so that this user's keys and hosts stay out of it."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "farm"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.fixture
def board(home: Path, ssh_device: Factory) -> Machine:
    return ssh_device()


def hostname(entry: DeviceEntry) -> str:
    transport = open_transport(entry)
    try:
        return transport.run(Command(("hostname",))).text.strip()
    finally:
        transport.close()
