"""`farm devices`: one of each kind, at the widths people have."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from farm.core.device import Device, DeviceEntry, Holder
from farm.ui.devices import devices
from tests.unit.reports.builders import android

FACTS = android().device_facts
HOLDER = Holder("ann@desk", "hold", "new battery", 6000.0)


def entry(name: str, **more: str) -> DeviceEntry:
    return DeviceEntry(name, "adb", serial=f"{name}-serial", **more)  # type: ignore[arg-type]


def gallery() -> list[Device]:
    remedy = "unlock it and accept the USB debugging question, then try again"
    return [
        Device(entry("s24"), FACTS),
        Device(
            entry("pi5"),
            FACTS,
            "held",
            "held by ann@desk: new battery, 1 h 40 min left",
            "ann@desk",
            holder=HOLDER,
            remedy="wait, or: farm devices release pi5 --from ann@desk --force",
        ),
        Device(entry("x[red]"), None, "offline", "replug \x1b[5mthe cable"),
        Device(
            entry("p8"),
            None,
            "unauthorized",
            f"p8: adb device p8-serial is unauthorized: {remedy}",
            remedy=remedy,
        ),
    ]


def shown(found: list[Device], width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(devices(found))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def words(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def test_state_reason_holder_temperature_and_next_step() -> None:
    lines = shown(gallery())
    text = words(lines)
    for part in (
        "✓ ready",
        "SM-S921B",
        "31 °C",
        "● held",
        "held by ann@desk: new battery, 1 h 40 min left",
        "→ wait, or: farm devices release pi5 --from ann@desk --force",
        "x[red] ✗ offline",
        "replug the cable",
        "adb device p8-serial is unauthorized",
        "→ unlock it and accept the USB debugging question",
        "1 ready, 1 held, 1 offline, 1 unauthorized",
    ):
        assert part in text, part
    # Neither the device's name nor the remedy is said twice in its row.
    assert "p8: adb" not in text
    assert text.count("unlock it") == 1


@pytest.mark.parametrize("width", [80, 100, 140])
def test_it_fits_the_terminal_and_keeps_words_whole(width: int) -> None:
    lines = shown(gallery(), width)
    assert max(map(len, lines)) <= width
    assert "unauthorized" in words(lines)
    assert any("ann@desk" in line for line in lines)


def test_warmth_is_the_battery_s_else_the_warmest_sensor_s() -> None:
    assert FACTS is not None
    board = replace(FACTS, battery_c=None, battery_level=None)
    text = words(shown([Device(entry("pi5"), board, hottest=("cpu-thermal", 61.2))]))
    assert "61 °C" in text
    assert "°C" not in words(shown([Device(entry("vm"), board)]))


def test_no_devices_says_what_to_do() -> None:
    assert "attach a phone" in words(shown([]))
