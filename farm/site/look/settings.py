"""Settings of a device that disturb measurements: how each is read and written. No root.

Android's are its own settings and doze; a Linux board's is the governor of its cores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from farm.core.command import Command
from farm.core.device import DeviceFacts
from farm.core.errors import DeviceError
from farm.protocols import Transport
from farm.site.parsers.text import clean_text

#: What `settings get` prints for a setting that was never made.
UNSET = "null"
SETTING_S = 10.0
_GOVERNOR = re.compile(r"/sys/devices/system/cpu/cpu\d{1,4}/cpufreq/scaling_governor")


class SettingRefused(DeviceError):
    """A device doesn't let us read or change a setting; the message says why."""


class Setting(Protocol):
    """One setting of a device."""

    @property
    def name(self) -> str:
        """How it is called, for people and in what is kept."""

    @property
    def wanted(self) -> str:
        """Value under which measurements are quiet."""

    def read(self, transport: Transport) -> str:
        """Return the present value.

        Raises:
            SettingRefused: It can't be read.
            TransportError: The connection broke.
        """

    def write(self, transport: Transport, value: str) -> None:
        """Change the value; reading it again shows whether that worked.

        Raises:
            SettingRefused: It can't be changed.
            TransportError: The connection broke.
        """


@dataclass(frozen=True, slots=True)
class AndroidSetting:
    """A value of Android's `settings`."""

    space: str
    key: str
    wanted: str

    @property
    def name(self) -> str:
        """Namespace and key."""
        return f"{self.space} {self.key}"

    def read(self, transport: Transport) -> str:
        """See Setting."""
        return _answer(transport, "settings", "get", self.space, self.key)

    def write(self, transport: Transport, value: str) -> None:
        """See Setting."""
        if value == UNSET:
            _answer(transport, "settings", "delete", self.space, self.key)
        else:
            _answer(transport, "settings", "put", self.space, self.key, value)


@dataclass(frozen=True, slots=True)
class Doze:
    """Android's idle mode; a restart turns it on again."""

    name: str = "doze"
    wanted: str = "disabled"

    def read(self, transport: Transport) -> str:
        """See Setting."""
        word = _answer(transport, "dumpsys", "deviceidle", "enabled")
        if word not in ("0", "1"):
            raise SettingRefused(f"deviceidle says {word[:80]!r}, not 0 or 1")
        return "enabled" if word == "1" else "disabled"

    def write(self, transport: Transport, value: str) -> None:
        """See Setting."""
        _answer(transport, "dumpsys", "deviceidle", value.removesuffix("d"))


@dataclass(frozen=True, slots=True)
class Governor:
    """Governor of one core of a Linux machine."""

    path: str
    wanted: str = "performance"

    @property
    def name(self) -> str:
        """Core and what is set."""
        return f"{self.path.split('/')[5]} governor"

    def read(self, transport: Transport) -> str:
        """See Setting."""
        return _answer(transport, "cat", self.path)

    def write(self, transport: Transport, value: str) -> None:
        """See Setting."""
        for argv in (("tee", self.path), ("sudo", "-n", "tee", self.path)):
            command = Command(argv, timeout_s=SETTING_S, stdin=value.encode())
            if transport.run(command).ok:
                return
        raise SettingRefused(
            f"not permitted; as root on it: echo {value} | tee"
            " /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        )


#: In the order of change: brightness only counts once it isn't automatic.
ANDROID: tuple[Setting, ...] = (
    AndroidSetting("global", "stay_on_while_plugged_in", "7"),
    AndroidSetting("system", "screen_off_timeout", "1800000"),
    AndroidSetting("system", "screen_brightness_mode", "0"),
    AndroidSetting("system", "screen_brightness", "10"),
    AndroidSetting("global", "low_power", "0"),
    AndroidSetting("global", "window_animation_scale", "0"),
    AndroidSetting("global", "transition_animation_scale", "0"),
    AndroidSetting("global", "animator_duration_scale", "0"),
    Doze(),
)


def settings_of(facts: DeviceFacts, probe: bytes) -> Sequence[Setting]:
    """Return the settings that a device has.

    Args:
        facts: What probing found.
        probe: Output of `farm-helper probe`, which names the governors' files.
    """
    if facts.sdk is not None or (facts.os or "").startswith("Android"):
        return ANDROID
    files = json.loads(probe).get("files", {})
    return [Governor(path) for path in sorted(files, key=_by_core) if _GOVERNOR.fullmatch(path)]


def _by_core(path: str) -> tuple[int, str]:
    digits = re.search(r"cpu(\d+)", path)
    return (int(digits[1]) if digits else 0, path)


def _answer(transport: Transport, *argv: str) -> str:
    done = transport.run(Command(argv, timeout_s=SETTING_S))
    text = clean_text(done.stdout).strip()
    answer = clean_text(done.stderr).strip() or text
    # Older Androids exit with 0 and print the exception.
    if not done.ok or "Exception" in answer:
        line = next(
            (line for line in answer.splitlines() if line.strip()), f"exit {done.exit_code}"
        )
        raise SettingRefused(f"{argv[0]}: {line[:200]}")
    return text[:200]
