"""Android's own commands: getprop, dumpsys battery, dumpsys thermalservice."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

#: A value may span lines, so an entry ends at a bracket before the next entry or the end.
_PROPERTY = re.compile(r"^\[([^\]\n]+)\]: \[(.*?)\][ \t]*$(?=\n\[|\s*\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"Temperature\{mValue=([^,]*), mType=(-?\d+), mName=([^,]*), mStatus=(-?\d+)\}")
_STATUS = re.compile(r"^\s*Thermal Status:\s*(\d+)\s*$", re.MULTILINE)

#: mType of the thermal HAL. 6, 7 and 8 are voltage, current and percent, not degrees.
_KINDS = {0: "cpu", 1: "gpu", 2: "battery", 3: "skin", 4: "usb_port", 5: "power_amplifier"}
_KINDS |= {9: "npu"}
_NOT_DEGREES = {6, 7, 8}


@dataclass(frozen=True, slots=True)
class Battery:
    """State of the battery now."""

    #: Percent.
    level: int | None
    celsius: float | None
    #: True when the system says that it is being charged.
    charging: bool | None
    powered: bool | None


@dataclass(frozen=True, slots=True)
class Temperature:
    """One sensor now."""

    name: str
    #: `cpu`, `gpu`, `battery`, `skin`, `npu`, ... or `other`.
    kind: str
    celsius: float


@dataclass(frozen=True, slots=True)
class Thermal:
    """The thermal service now."""

    #: 0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown.
    status: int | None
    temperatures: tuple[Temperature, ...]


def parse_getprop(text: str) -> dict[str, str]:
    """Read `getprop`; an entry cut off at the end is left out."""
    return {key: value for key, value in _PROPERTY.findall(text.replace("\r\n", "\n"))}


def parse_battery(text: str) -> Battery | None:
    """Read the first state block of `dumpsys battery`; None when there is no battery.

    Vendors append histories and settings that repeat `level:` and `temperature:`, so the
    first line of each key counts, and keys are matched whole.
    """
    _, found, block = text.partition("Current Battery Service state:")
    if not found:
        return None
    values: dict[str, str] = {}
    for line in block.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), value.strip())
    if values.get("present") == "false":
        return None
    level, scale = _integer(values.get("level")), _integer(values.get("scale")) or 100
    tenths = _integer(values.get("temperature"))
    status = _integer(values.get("status"))
    powered = [values[key] for key in values if key.endswith(" powered")]
    return Battery(
        level=None if level is None or not 0 <= level <= scale else round(100 * level / scale),
        celsius=None if tenths is None or not -400 < tenths < 1200 else tenths / 10,
        charging=None if status is None else status == 2,
        powered="true" in powered if powered else None,
    )


def parse_thermalservice(text: str) -> Thermal:
    """Read `dumpsys thermalservice`: the status and what the HAL reads now.

    The cached list can be hours old and is not used. 0.0 and -99.9 mean an absent sensor.
    """
    status = _STATUS.search(text)
    _, _, rest = text.partition("Current temperatures from HAL:")
    current = rest.partition("Current cooling devices")[0]
    temperatures = []
    for value, kind, name, _status in _ROW.findall(current):
        celsius = _celsius(value)
        # One vendor numbers mType differently and puts the standard's type into the name.
        named = name[5:].lower() if name.startswith("TYPE_") else None
        if celsius is None or (named is None and int(kind) in _NOT_DEGREES):
            continue
        if named is not None and named.startswith("bcl_"):
            continue
        temperatures.append(Temperature(name, named or _KINDS.get(int(kind), "other"), celsius))
    return Thermal(int(status[1]) if status else None, tuple(temperatures))


def _celsius(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value) or value == 0.0 or not -60.0 < value < 200.0:
        return None
    return round(value, 1)


def _integer(text: str | None) -> int | None:
    if text is None or not re.fullmatch(r"-?[0-9]{1,9}", text):
        return None
    return int(text)
