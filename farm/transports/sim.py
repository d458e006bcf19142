"""A simulated device: a folder of this machine behind a link with latency, rate and faults.

For tests and `farm sim`. What goes wrong is scripted by the entry's `sim` values, so the same
fault comes at the same place every time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from farm.core.command import Command, Completed
from farm.core.device import DeviceEntry
from farm.core.errors import ConfigError, ConnectError, DeviceLost, StorageFull, TransportTimeout
from farm.paths import farm_home
from farm.transports.local import LocalTransport


@dataclass(frozen=True, slots=True)
class SimScript:
    """How a simulated device behaves. Counts run over the life of the transport."""

    #: Added to every call, seconds.
    latency_s: float = 0.0
    #: Rate of push and pull; 0 is as fast as the disk.
    bytes_per_s: float = 0.0
    #: Every call fails with ConnectError.
    refuse: bool = False
    #: The connection drops once, when push and pull have moved about so many bytes.
    drop_after_bytes: int | None = None
    #: From this call on, counted from 1, nothing answers any more.
    freeze_at_call: int | None = None
    #: Commands with this word among their arguments never end.
    hang_word: str | None = None
    #: Push and pull may move so many bytes before the disk is full.
    storage_bytes: int | None = None


def parse_script(entry: DeviceEntry) -> SimScript:
    """Read the `sim` values of an entry.

    Raises:
        ConfigError: A key is unknown or a value isn't of its kind.
    """
    values: dict[str, float | int | bool | str] = {}
    known = {field.name for field in fields(SimScript)}
    for key, text in entry.sim:
        where = f"device '{entry.name}': sim.{key}"
        if key not in known:
            raise ConfigError(f"{where}: unknown key; known: {', '.join(sorted(known))}")
        try:
            values[key] = _value(key, text)
        except ValueError as error:
            raise ConfigError(f"{where}: {text!r} {error}") from error
    return SimScript(**values)  # type: ignore[arg-type]


def _value(key: str, text: str) -> float | int | bool | str:
    if key == "hang_word":
        return text
    if key == "refuse":
        if text.lower() not in ("true", "false"):
            raise ValueError("isn't true or false")
        return text.lower() == "true"
    number = float(text) if key.endswith("_s") else int(text)
    if number < 0:
        raise ValueError("is negative")
    return number


def open_sim(entry: DeviceEntry) -> SimTransport:
    """Make a simulated device.

    Raises:
        ConfigError: Its script is wrong.
    """
    root = Path(entry.root).expanduser() if entry.root else farm_home() / "sim" / entry.name
    return SimTransport(entry.name, root, parse_script(entry))


class SimTransport(LocalTransport):
    """The local transport behind a scripted link.

    Args:
        device: Name of the device, for errors.
        root: farm's folder on this device.
        script: What goes wrong, and when.
    """

    name = "sim"
    _copy_bytes = 1 << 14

    def __init__(self, device: str, root: Path, script: SimScript) -> None:
        super().__init__(device, root)
        self._script = script
        self._calls = 0
        self._moved = 0
        self._dropped = False
        self._closing = threading.Event()

    def run(self, command: Command, on_stdout: Callable[[bytes], None] | None = None) -> Completed:
        """Run a program, unless the script says that it hangs."""
        word = self._script.hang_word
        if word is not None and word in command.argv:
            self._arrive(command.timeout_s)
            raise self._frozen(command.timeout_s)
        return super().run(command, on_stdout)

    def close(self) -> None:
        """End what waits or runs and refuse further calls."""
        self._closing.set()
        super().close()

    def _arrive(self, limit_s: float) -> None:
        """Cross the link: latency, refusal, silence."""
        super()._arrive(limit_s)
        self._calls += 1
        self._pause(self._script.latency_s)
        if self._script.refuse:
            raise ConnectError(f"{self._device}: refuses the connection", device=self._device)
        freeze = self._script.freeze_at_call
        if freeze is not None and self._calls >= freeze:
            raise self._frozen(limit_s)

    def _moving(self, count: int) -> None:
        super()._moving(count)
        script = self._script
        self._moved += count
        if script.bytes_per_s:
            self._pause(count / script.bytes_per_s)
        if script.storage_bytes is not None and self._moved > script.storage_bytes:
            raise StorageFull(f"{self._device}: no space left", device=self._device)
        drop = script.drop_after_bytes
        if drop is not None and self._moved > drop and not self._dropped:
            self._dropped = True
            raise DeviceLost(f"the connection to {self._device} broke", device=self._device)

    def _frozen(self, patience_s: float) -> TransportTimeout:
        self._pause(patience_s)
        return TransportTimeout(
            f"{self._device} didn't answer for {patience_s:g} s", device=self._device
        )

    def _pause(self, seconds: float) -> None:
        if seconds and self._closing.wait(seconds):
            raise self._gate.lost()
