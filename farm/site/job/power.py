"""Energy of timed windows, from the best gauge that a device has. Pure.

A gauge gives either power at moments, which is integrated, or a counter of energy. Windows that
are short compared with the time between two samples (half a second) have no energy.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from farm.core.runtime import Sample
from farm.core.telemetry import WindowEnergy
from farm.site.parsers.telemetry import Reading, Recording

#: Least sum of a metric's windows, seconds.
MIN_SECONDS = 2.0
#: Watts that a whole device can draw; beyond them a driver means another unit.
_LEAST_W, _MOST_W = 0.05, 2000.0
#: Names of rails that feed everything else.
_MAIN_RAILS = ("VDD_IN", "POM_5V_IN", "5V_IN")
#: Rails that feed a whole board together, where none feeds it alone: AGX Orin, AGX Xavier.
_RAIL_SETS = (
    frozenset({"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"}),
    frozenset({"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}),
)
#: What labels of unconnected inputs and of the sensor's own sum say.
_NO_RAILS = ("NC", "SUM OF SHUNT VOLTAGES")


@dataclass(frozen=True, slots=True)
class _Curve:
    """Energy since the first reading, by time."""

    times_s: tuple[float, ...]
    joules: tuple[float, ...]

    def between(self, start_s: float, end_s: float) -> float | None:
        """Energy of a window; None when it reaches beyond the readings."""
        if not self.times_s[0] <= start_s < end_s <= self.times_s[-1]:
            return None
        return self._at(end_s) - self._at(start_s)

    def _at(self, t_s: float) -> float:
        right = min(max(bisect.bisect_left(self.times_s, t_s), 1), len(self.times_s) - 1)
        t0, t1 = self.times_s[right - 1], self.times_s[right]
        e0, e1 = self.joules[right - 1], self.joules[right]
        return e0 + (e1 - e0) * (t_s - t0) / (t1 - t0)


def window_energy(
    recording: Recording, samples: Sequence[Sample]
) -> tuple[tuple[WindowEnergy, ...], str]:
    """Energy by metric, and where it comes from or why there is none."""
    curve, source = _curve(recording)
    if curve is None:
        return (), source
    found = []
    for metric in dict.fromkeys(s.metric for s in samples if s.tokens and not s.warmup):
        windows = [s for s in samples if s.metric == metric and not s.warmup]
        seconds = sum(s.duration_s for s in windows)
        parts = [curve.between(s.t_s, s.t_s + s.duration_s) for s in windows]
        joules = [part for part in parts if part is not None]
        if seconds >= MIN_SECONDS and len(joules) == len(windows):
            tokens = sum(s.tokens for s in windows)
            found.append(WindowEnergy(metric, sum(joules), tokens, seconds))
    if not found:
        return (), f"{source}: timed windows are shorter than {MIN_SECONDS:g} s together"
    return tuple(found), source


def gauge(recording: Recording) -> tuple[bool, str]:
    """Whether a device tells its power, and by what; else why it doesn't."""
    curve, source = _curve(recording)
    return curve is not None, source


def _curve(recording: Recording) -> tuple[_Curve | None, str]:
    """The best gauge: a battery's, then the rails', a power meter's, a processor's counter."""
    reasons = []
    for find in (_battery, _rails, _meters, _counters):
        power, source = find(recording)
        if power is None:
            reasons.append(source)
            continue
        curve = power(recording.readings)
        if curve is not None:
            return curve, source
        reasons.append(f"{source} gave no plausible values")
    known = [reason for reason in reasons if reason]
    return None, "; ".join(known) or "no fuel gauge, power sensor or energy counter"


_Integrate = Callable[[Sequence[Reading]], _Curve | None]
_Watts = Callable[[Reading], float | None]


def _battery(recording: Recording) -> tuple[_Integrate | None, str]:
    for folder in recording.batteries:
        if not recording.paths(f"{folder}/current_now"):
            continue
        states = {r.texts.get(f"{folder}/status") for r in recording.readings} - {None, ""}
        if states != {"Discharging"}:
            found = "/".join(sorted(str(state) for state in states)) or "of unknown state"
            return None, f"the battery is {found}: its gauge doesn't see what the supply gives"
        # Microamperes and microvolts; the sign of the current differs between drivers.
        current, voltage = f"{folder}/current_now", f"{folder}/voltage_now"
        return _powers(partial(_product, one=current, other=voltage, unit=1e-12)), "fuel gauge"
    return None, ""


def _rails(recording: Recording) -> tuple[_Integrate | None, str]:
    """The rail that feeds all others, else a known set of rails that feed the board together."""
    rails: dict[str, _Watts] = {}
    for path, label in recording.names.items():
        watts = _rail(recording, path)
        if watts is not None and label.upper() not in _NO_RAILS:
            rails[label.upper()] = watts
    wanted = next((frozenset({name}) for name in _MAIN_RAILS if name in rails), None)
    wanted = wanted or next((names for names in _RAIL_SETS if names <= rails.keys()), None)
    if wanted is not None:
        names = sorted(wanted)
        watts = partial(_sum, parts=[rails[name] for name in names])
        return _powers(watts), f"INA {' + '.join(names)}"
    if rails:
        return None, f"rails {', '.join(sorted(rails))} are no set that feeds the whole board"
    return None, ""


def _rail(recording: Recording, path: str) -> _Watts | None:
    """Power of the input of an INA3221 that a label names; None for another file."""
    if match := re.fullmatch(r"(.*/hwmon\d+/)in(\d)_label", path):
        volts, amperes = f"{match[1]}in{match[2]}_input", f"{match[1]}curr{match[2]}_input"
        if not recording.paths(amperes):
            return None  # a voltage alone, of another sensor
        return partial(_product, one=volts, other=amperes, unit=1e-6)
    if match := re.fullmatch(r"(.*/iio:device\d+/)rail_name_(\d)", path):
        return partial(_scaled, path=f"{match[1]}in_power{match[2]}_input", unit=1e-3)
    return None


def _meters(recording: Recording) -> tuple[_Integrate | None, str]:
    """The sensor of power in hwmon: an INA2xx or an ACPI power meter on the supply, microwatts."""
    found = []
    for path in recording.paths("_input"):
        match = re.fullmatch(r"(/sys/class/hwmon/hwmon\d+)/power1_input", path)
        name = recording.names.get(f"{match[1]}/name", "") if match else ""
        if name.startswith(("ina2", "power_meter")):
            found.append((path, name))
    if len(found) > 1:
        return None, f"{len(found)} power sensors ({found[0][1]}): which feed the whole is unknown"
    for path, name in found:
        return _powers(partial(_scaled, path=path, unit=1e-6)), f"hwmon {name}"
    return None, ""


def _counters(recording: Recording) -> tuple[_Integrate | None, str]:
    """Counters of microjoules: those of processor packages together, or the one of hwmon."""
    packages = [
        path
        for path in recording.paths("/energy_uj")
        if recording.names.get(path.replace("energy_uj", "name"), "").startswith("package")
    ]
    paths = packages or [p for p in recording.paths("_input") if "/energy" in p]
    if not paths:
        return None, ""
    if not packages and len(paths) > 1:
        return None, f"{len(paths)} energy counters of hwmon: which count the whole is unknown"
    source = f"energy counter of {len(paths)} processor package(s)" if packages else "hwmon energy"
    return lambda readings: _counted(readings, paths), source


def _powers(watts: _Watts) -> _Integrate:
    def integrate(readings: Sequence[Reading]) -> _Curve | None:
        points = [(r.t_s, w) for r in readings if (w := watts(r)) is not None]
        points = [(t, w) for t, w in points if _LEAST_W <= w <= _MOST_W]
        if len(points) < 2:
            return None
        times, joules = [points[0][0]], [0.0]
        for (t0, w0), (t1, w1) in itertools.pairwise(points):
            if t1 > t0:
                times.append(t1)
                joules.append(joules[-1] + (t1 - t0) * (w0 + w1) / 2)
        return _Curve(tuple(times), tuple(joules)) if len(times) > 1 else None

    return integrate


def _counted(readings: Sequence[Reading], paths: Sequence[str]) -> _Curve | None:
    points = []
    for reading in readings:
        values = [reading.integer(path) for path in paths]
        if None not in values:
            points.append((reading.t_s, sum(v for v in values if v is not None) / 1e6))
    rising = all(b[0] > a[0] and b[1] >= a[1] for a, b in itertools.pairwise(points))
    if len(points) < 2 or not rising:
        return None  # a counter that wrapped says nothing of the whole
    first = points[0][1]
    return _Curve(tuple(t for t, _ in points), tuple(e - first for _, e in points))


def _sum(reading: Reading, parts: Sequence[_Watts]) -> float | None:
    values = [part(reading) for part in parts]
    return None if None in values else sum(value for value in values if value is not None)


def _product(reading: Reading, one: str, other: str, unit: float) -> float | None:
    a, b = reading.integer(one), reading.integer(other)
    return None if a is None or b is None else abs(a * b) * unit


def _scaled(reading: Reading, path: str, unit: float) -> float | None:
    value = reading.integer(path)
    return None if value is None else value * unit
