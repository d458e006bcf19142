"""Android's own commands: getprop, dumpsys battery, dumpsys thermalservice."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from farm.site.parsers.system import is_temperature
from farm.site.parsers.text import plain_text, whole_lines

#: Beginning of an entry. Its value may span lines, so it ends before the next entry or the end.
_ENTRY = re.compile(r"\[([^\]\n]+)\]: \[(.*)")
_LAST = "[end]: [of the text"
_ROW = re.compile(
    r"Temperature\{mValue=([^,}\n]*), mType=(-?\d{1,3}), mName=([^,}\n]*), mStatus=(-?\d{1,3})[,}]"
)
_STATUS = re.compile(r"^[ \t]*Thermal Status:[ \t]*([0-6])[ \t]*$", re.MULTILINE)
_FLAG = re.compile(r"^[ \t]*(IsStatusOverride|HAL Ready):[ \t]*(true|false)[ \t]*$", re.MULTILINE)
_UNCONNECTED = re.compile(r"\bconnected: no\b")
_COOLING = re.compile(r"CoolingDevice\{mValue=(\d{1,9}), mType=(-?\d{1,3}), mName=([^,}\n]*)[,}]")
#: The first HAL has no word for throttling, so that the service says 0 whatever happens.
_NO_STATUS = re.compile(r"\bThermalHAL 1\.0 +connected: yes\b")
#: What `dumpsys battery set` and `unplug` leave behind: the values are those of that moment.
_STOPPED = re.compile(r"^[ \t]*\(UPDATES STOPPED\b", re.MULTILINE)
#: Cooling devices of this type lower the clocks of the processor, or take cores away.
_COOLS_CPU = 2

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
    #: Why nothing was read; empty where something was.
    unread: str = ""


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

    #: 0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown; None when
    #: it wasn't measured.
    status: int | None
    temperatures: tuple[Temperature, ...]
    #: Cooling devices of the processor that hold it back now: name and step, 1 the mildest.
    capped: tuple[tuple[str, int], ...] = ()
    #: Why there is no status; empty when there is one.
    unread: str = ""


def parse_getprop(text: str) -> dict[str, str]:
    """Read `getprop`; an entry cut off at the end is left out."""
    lines = whole_lines(plain_text(text)).rstrip().split("\n")
    values: dict[str, str] = {}
    key, held = "", [""]
    for line in [*lines, _LAST]:
        begin = _ENTRY.match(line)
        if begin and (not key or held[-1].rstrip().endswith("]")):
            if key:
                values[key] = "\n".join(held).rstrip()[:-1]
            key, held = begin[1], [begin[2]]
        elif key:
            held.append(line)
    return values


def parse_battery(text: str) -> Battery | None:
    """Read the first state block of `dumpsys battery`; None when there is no battery.

    Vendors append histories and settings that repeat `level:` and `temperature:`, so the
    first line of each key counts, and keys are matched whole.
    """
    _, found, block = plain_text(text).partition("Current Battery Service state:")
    if not found:
        return None
    if _STOPPED.search(block):
        remedy = "run `dumpsys battery reset` on the device"
        return Battery(None, None, None, None, f"somebody overrode the battery's values: {remedy}")
    values: dict[str, str] = {}
    for line in whole_lines(block).splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), value.strip())
    if values.get("present") == "false":
        return None
    level, scale = _integer(values.get("level")), _integer(values.get("scale", "100"))
    share = None if level is None or not scale or not 0 <= level <= scale else level / scale
    tenths = _integer(values.get("temperature"))
    status = _integer(values.get("status"))
    powered = [values[key] for key in values if key.endswith(" powered")]
    return Battery(
        level=None if share is None else round(100 * share),
        # A supply without a sensor reports 0, and an unknown status 1.
        celsius=tenths / 10 if tenths and -400 < tenths < 1200 else None,
        charging=status == 2 if status in (2, 3, 4, 5) else None,
        powered="true" in powered if powered else None,
    )


def parse_thermalservice(text: str) -> Thermal:
    """Read `dumpsys thermalservice`: the status and what the HAL reads now.

    The cached list can be hours old and is not used. 0.0 and -99.9 mean an absent sensor.
    """
    text = plain_text(text)
    _, _, rest = text.partition("Current temperatures from HAL:")
    current, _, after = rest.partition("Current cooling devices")
    temperatures = []
    worst = 0
    for value, kind, name, severity in _ROW.findall(current):
        celsius = _celsius(value)
        # One vendor numbers mType differently and puts the standard's type into the name.
        named = name[5:].lower() if name.startswith("TYPE_") else None
        if celsius is None or (named is None and int(kind) in _NOT_DEGREES):
            continue
        if not is_temperature(name) or (named is not None and named.startswith("bcl_")):
            continue
        temperatures.append(Temperature(name, named or _KINDS.get(int(kind), "other"), celsius))
        if temperatures[-1].kind == "skin" and 0 < int(severity) < 7:
            worst = max(worst, int(severity))
    capped = tuple(
        (name, int(step))
        for step, kind, name in _COOLING.findall(after)
        if int(kind) == _COOLS_CPU and int(step) > 0
    )
    status, unread = _status(text, temperatures)
    # The service learns of a change by a call that may be late; what the HAL says is of now.
    status = None if status is None else max(status, worst)
    return Thermal(status, tuple(temperatures), capped, unread)


def _status(text: str, temperatures: list[Temperature]) -> tuple[int | None, str]:
    """The status and "", or None and why it wasn't measured.

    The service prints 0 also before a HAL answers, and without a sensor to derive it from.
    """
    found = _STATUS.search(text)
    flags = dict(_FLAG.findall(text))
    if found is None:
        return None, "the thermal service reports no status"
    if flags.get("IsStatusOverride") == "true":
        return None, (
            "somebody overrode the thermal status: run `cmd thermalservice reset` on the device"
        )
    if flags.get("HAL Ready") != "true":
        return None, "the thermal HAL isn't ready"
    if _UNCONNECTED.search(text):
        return None, "the thermal HAL isn't connected"
    if _NO_STATUS.search(text):
        return None, "the thermal HAL 1.0 reports no throttling, so the status is always 0"
    if found[1] == "0" and not any(item.kind == "skin" for item in temperatures):
        # The service takes the status from sensors of the skin alone.
        return None, "no skin sensor reports anything, and the thermal status follows those"
    return int(found[1]), ""


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
