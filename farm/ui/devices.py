"""`farm devices`: each device with its state, what it is, why it can't be used, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farm.core.device import Device, DeviceFacts
from farm.core.printable import one_line
from farm.reports.words import size

#: Mark and style of each state; any other is trouble.
_STATES = {
    "ready": ("✓", "green"),
    "leased": ("●", "blue"),
    "held": ("●", "blue"),
    "recovering": ("…", "yellow"),
    "quarantined": ("!", "yellow"),
    "elsewhere": ("·", "dim"),
}
_TROUBLE = ("✗", "red")
#: From here on a battery, or any other sensor, is shown as warm, degrees Celsius.
_WARM_BATTERY_C, _WARM_C = 37.0, 80.0


def devices(found: Sequence[Device]) -> RenderableType:
    """Devices one after another, and a count of their states."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("device", overflow="fold", max_width=24)
    table.add_column("state", no_wrap=True)
    table.add_column("temp", justify="right", no_wrap=True)
    table.add_column("what it is, why, what to do", overflow="fold", ratio=1)
    for device in found:
        mark, style = _STATES.get(device.state, _TROUBLE)
        table.add_row(
            Text(one_line(device.name), "bold"),
            Text(f"{mark} {one_line(device.state, 14)}", style),
            _temperature(device),
            _about(device, style),
        )
    return Group(table, _count(found))


def _about(device: Device, style: str) -> Text:
    lines = []
    what = _description(device)
    if what:
        lines.append(Text(what, "dim" if device.state not in ("ready", "leased", "held") else ""))
    if device.problem:
        lines.append(Text(one_line(device.problem), style))
    if device.remedy:
        lines.append(Text(f"→ {one_line(device.remedy)}", "cyan"))
    return Text("\n").join(lines)


def _description(device: Device) -> str:
    """One line: model, system, ABI, cores, RAM, transport; without facts where it should be."""
    entry, facts = device.entry, device.facts
    where = entry.serial or entry.host or ""
    place = entry.transport if where in ("", device.name) else f"{entry.transport} {where}"
    parts = [one_line(place, 40)] if facts is None else [*_facts(facts), entry.transport]
    return " · ".join(part for part in parts if part)


def _facts(facts: DeviceFacts) -> list[str]:
    return [
        one_line(facts.model or facts.soc or "", 32),
        one_line(facts.os or "", 32),
        facts.abi + (" (emulated)" if facts.emulated else ""),
        "" if facts.cores is None else f"{facts.cores} cores",
        "" if facts.ram_bytes is None else size(facts.ram_bytes),
        "" if facts.battery_level is None else f"battery {facts.battery_level} %",
    ]


def _temperature(device: Device) -> Text:
    facts = device.facts
    if facts is None:
        return Text("")
    if facts.battery_c is not None:
        limit = device.entry.thermal.battery_max_c or _WARM_BATTERY_C
        return Text(f"{facts.battery_c:.0f} °C", "yellow" if facts.battery_c > limit else "")
    if device.hottest is None:
        return Text("-", "dim")
    celsius = device.hottest[1]
    return Text(f"{celsius:.0f} °C", "yellow" if celsius > _WARM_C else "")


def _count(found: Sequence[Device]) -> Text:
    if not found:
        return Text("no devices: attach a phone, or name some in an inventory (--inventory FILE)")
    counts = Counter(device.state for device in found)
    order = sorted(counts, key=lambda state: [*_STATES, state].index(state))
    parts = [(f"{counts[s]} {one_line(s)}", _STATES.get(s, _TROUBLE)[1]) for s in order]
    text = Text()
    for number, part in enumerate(parts):
        text.append(", " if number else "")
        text.append(*part)
    return text
