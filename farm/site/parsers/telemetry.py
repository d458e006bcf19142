"""`farm-helper telemetry`: lines of raw text to readings. Pure; nothing is guessed.

Lines that are cut, garbled or of another type are left out: a sampler may be ended inside one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farm.core.telemetry import Calibration, CoreSpeed

#: Folder of batteries and chargers.
SUPPLIES = "/sys/class/power_supply/"

#: Clock ticks a second, and nanoseconds (three centuries), that are believed.
_MOST_TICKS, _MOST_NS = 1_000_000, 1 << 63
_CLOCK = re.compile(r"/(policy\d+|cpu\d+(?=/cpufreq))/(?:cpufreq/)?scaling_(?:max|cur)_freq$")


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """The first line of /proc/stat, in clock ticks."""

    busy: int
    idle: int
    steal: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample: texts by path. A path whose text is None could not be read."""

    #: On the device's monotonic clock, seconds.
    t_s: float
    #: CPU time that its process had used, seconds.
    cost_s: float
    texts: Mapping[str, str | None]

    def integer(self, path: str) -> int | None:
        """A whole number; None when it wasn't read or is something else."""
        text = (self.texts.get(path) or "").strip()
        return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


@dataclass(slots=True)
class Recording:
    """Everything one launch's telemetry file says."""

    readings: list[Reading] = field(default_factory=list)
    calibrations: list[Calibration] = field(default_factory=list)
    #: Names of sensors by path: texts that don't change.
    names: dict[str, str] = field(default_factory=dict)
    ticks_s: float = 0.01

    def paths(self, suffix: str) -> list[str]:
        """Paths with this end that some reading has."""
        return sorted({p for one in self.readings for p in one.texts if p.endswith(suffix)})

    @property
    def batteries(self) -> list[str]:
        """Folders of the device's batteries, without those of a mouse or a keyboard."""
        return [
            path.removesuffix("/type")
            for path, kind in self.names.items()
            if path.startswith(SUPPLIES) and kind == "Battery" and "/hid" not in path
        ]

    def clock_names(self, leaf: str = "scaling_max_freq") -> dict[str, str]:
        """Cluster by path of its clock's ceiling, or of its clock: `scaling_cur_freq`."""
        found = ((path, _CLOCK.search(path)) for path in self.paths(leaf))
        return {path: match[1] for path, match in found if match}


def parse_telemetry(text: bytes) -> Recording:
    """Read a telemetry file."""
    found = Recording()
    paths: list[str] = []
    for line in text.splitlines():
        value = _object(line)
        match value:
            case {"type": "sensors", "paths": list(named), "names": dict(names)}:
                paths = [str(path) for path in named]
                found.names |= {str(path): str(name) for path, name in names.items()}
                ticks = value.get("clock_ticks")
                if isinstance(ticks, int) and 0 < ticks <= _MOST_TICKS:
                    found.ticks_s = 1 / ticks
            case {"type": "sample", "t_ns": int(t), "cost_ns": int(cost), "texts": dict(texts)} if (
                0 <= t < _MOST_NS and 0 <= cost < _MOST_NS
            ):
                read = {paths[int(i)]: _text(v) for i, v in texts.items() if _known(i, paths)}
                found.readings.append(Reading(t / 1e9, cost / 1e9, read))
            case {"type": "calibration", "cores": list(cores)}:
                calibration = _calibration(value, cores, found.ticks_s)
                if calibration is not None:
                    found.calibrations.append(calibration)
    return found


def cpu_times(text: str | None) -> CpuTimes | None:
    """Read `cpu  user nice system idle iowait irq softirq steal guest guest_nice`."""
    match = re.match(r"cpu\s+((?:\d{1,18}\s+){7,9}\d{1,18})$", (text or "").strip())
    if match is None:
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, match[1].split()[:8])
    # Guest time is part of user time.
    return CpuTimes(user + nice + system + irq + softirq, idle + iowait, steal)


def process_cpu_s(text: str | None, ticks_s: float) -> float | None:
    """CPU time of a process from /proc/PID/stat, its ended children included."""
    _, bracket, rest = (text or "").rpartition(")")
    fields = rest.split()
    if (
        not bracket
        or len(fields) < 15
        or not all(re.fullmatch(r"[0-9]{1,18}", f) for f in fields[11:15])
    ):
        return None
    return sum(map(int, fields[11:15])) * ticks_s


def throttling(text: str | None) -> tuple[int, float] | None:
    """Throttle count and seconds of a cgroup's cpu.stat; None when it has none.

    Version 2 writes `throttled_usec`, version 1 `throttled_time` in nanoseconds.
    """
    values = dict(re.findall(r"^(\w+) (\d{1,18})$", text or "", re.MULTILINE))
    if "nr_throttled" not in values:
        return None
    if "throttled_usec" in values:
        return int(values["nr_throttled"]), int(values["throttled_usec"]) / 1e6
    return int(values["nr_throttled"]), int(values.get("throttled_time", 0)) / 1e9


def firmware_bits(text: str | None) -> int | None:
    """Bits of `get_throttled`: hexadecimal, with or without `throttled=0x`."""
    match = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-f]{1,8})", (text or "").strip().lower())
    return int(match[1], 16) if match else None


def power_mode(text: str | None) -> str | None:
    """Number of a Jetson's power mode from nvpmodel's status file, `pmode:0002`."""
    match = re.search(r"\bpmode:0*(\d{1,4})\b", text or "")
    return match[1] if match else None


def power_mode_names(text: str | None) -> dict[str, str]:
    """Names of power modes by number from nvpmodel's configuration."""
    rows = re.findall(r"POWER_MODEL\s+ID=0*(\d{1,4})\s+NAME=([\w.+-]{1,40})\s*>", text or "")
    return dict(rows)


def _calibration(value: Mapping[str, Any], cores: list[Any], ticks_s: float) -> Calibration | None:
    speeds, cpu_ns, wall_ns = [], 0, 0
    for core in cores:
        match core:
            case {"cpu": int(cpu), "unit_ns": int(unit), "cpu_ns": int(used), "wall_ns": int(wall)}:
                if 0 < unit < _MOST_NS and 0 <= used < _MOST_NS and 0 < wall < _MOST_NS:
                    more = map(core.get, ("wide_ns", "unit_mean_ns", "wide_mean_ns"))
                    speeds.append(CoreSpeed(cpu, unit, *map(_positive, more)))
                    cpu_ns, wall_ns = cpu_ns + used, wall_ns + wall
    if not speeds:
        return None
    share = min(1.0, cpu_ns / wall_ns)
    others = _others(value, cpu_ns / 1e9, ticks_s)
    return Calibration(tuple(speeds), share, others, _positive(value.get("memory_ns")))


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and 0 < value < _MOST_NS else None


def _others(value: Mapping[str, Any], own_s: float, ticks_s: float) -> float | None:
    before, after = (cpu_times(str(value.get(key))) for key in ("stat_before", "stat_after"))
    match value:
        case {"start_ns": int(start), "end_ns": int(end)} if (
            before and after and 0 <= start < end < _MOST_NS
        ):
            busy_s = (after.busy - before.busy) * ticks_s
            return max(0.0, busy_s - own_s) / ((end - start) / 1e9)
    return None


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _known(index: str, paths: list[str]) -> bool:
    return re.fullmatch(r"[0-9]{1,6}", index) is not None and int(index) < len(paths)
