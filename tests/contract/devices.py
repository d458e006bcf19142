"""Devices on which the transport contract is checked, all looked at from the host alike."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from farm.core.command import Command
from farm.core.device import DeviceEntry
from farm.protocols import Transport
from farm.transports import open as open_transport


@dataclass
class ContractDevice:
    """A device under test and a fresh folder on it."""

    entry: DeviceEntry
    #: The folder as the device calls it.
    folder: str
    #: The same folder as this machine calls it.
    host_folder: Path
    #: A place on the device where nothing can be written for lack of space.
    full_place: Callable[[], str]
    _open: list[Transport] = field(default_factory=list)

    def transport(self) -> Transport:
        """Make one more transport to the device."""
        made = open_transport(self.entry)
        self._open.append(made)
        return made

    def remote(self, name: str) -> str:
        """Path of a file in the folder, on the device."""
        return f"{self.folder}/{name}"

    def host(self, name: str) -> Path:
        """Path of the same file on this machine."""
        return self.host_folder / name

    def close(self) -> None:
        """Close every transport."""
        for transport in self._open:
            transport.close()


def shell(script: str, *words: str, **options: object) -> Command:
    """A command that runs a script of the device's shell."""
    return Command(("sh", "-c", script, "sh", *words), **options)  # type: ignore[arg-type]


def marker() -> str:
    """A word to find a process by."""
    return f"farm-test-{uuid.uuid4().hex}"


def running(word: str) -> bool:
    """Whether a process with this word runs; processes of lab devices are seen from here too."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False


def gone(word: str, within_s: float = 3.0) -> bool:
    """Wait until no process with this word runs."""
    deadline = time.monotonic() + within_s
    while running(word):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
