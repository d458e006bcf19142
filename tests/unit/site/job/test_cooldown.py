"""The thermal gate waits for a warm device, says why, and not longer than it may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farm.core.device import DeviceFacts, ThermalLimits
from farm.core.rules.classes import DeviceClass
from farm.core.telemetry import Start
from farm.site.device.connection import Snapshot
from farm.site.job.cooldown import LOOK_S, ZONE_MAX_C, cool_down, heat

PHONE = DeviceFacts(identity="p", abi="arm64-v8a", thermal_status=0, battery_c=30.0)
BOARD = DeviceFacts(identity="b", abi="arm64-v8a")
LIMITS = ThermalLimits(battery_max_c=37.0, wait_max_s=60.0)


class Room:
    """A device that cools by one degree every ten seconds of a made clock."""

    def __init__(self, facts: DeviceFacts, zone_c: float | None = None) -> None:
        self.facts, self.zone_c = facts, zone_c
        self.clock = 0.0
        self.said: list[str] = []

    def look(self) -> Snapshot:
        cooler = self.clock / 10
        facts = self.facts
        if facts.battery_c is not None:
            facts = replace(facts, battery_c=facts.battery_c - cooler)
        zones = () if self.zone_c is None else (("cpu-thermal", self.zone_c - cooler),)
        return Snapshot(facts, zones)

    def wait(self, text: str, seconds: float) -> None:
        assert seconds <= LOOK_S
        self.said.append(text)
        self.clock += seconds

    def start(self, kind: DeviceClass = "phone", limits: ThermalLimits = LIMITS) -> Start:
        return cool_down(2, kind, limits, self.look, self.wait, lambda: self.clock)


def test_a_cool_device_is_not_waited_for() -> None:
    room = Room(PHONE)
    assert room.start() == Start(2, 0.0, "", blind=False, thermal_status=0, battery_c=30.0)
    assert room.said == []


def test_a_warm_battery_is_waited_for_in_view() -> None:
    room = Room(replace(PHONE, battery_c=39.0))
    start = room.start()
    assert (start.hot, start.waited_s) == ("", 20.0)
    assert room.said[0] == "cooling down: battery 39.0 °C, limit 37 (waits 60 s at most)"


def test_the_wait_has_an_end() -> None:
    room = Room(replace(PHONE, thermal_status=2))
    start = room.start()
    assert (start.hot, start.waited_s) == ("thermal status 2", 60.0)
    assert room.clock == 60.0


def test_a_warm_board_is_waited_for_by_its_zones() -> None:
    room = Room(BOARD, zone_c=72.0)
    start = room.start("board")
    assert (start.hot, start.waited_s, start.blind) == ("", 20.0, False)
    assert "cpu-thermal 72.0 °C" in room.said[0]


def test_only_sensors_of_the_processor_hold_a_board_back() -> None:
    zones = (("CPU-therm", 41.0), ("PMIC-Die", 100.0))
    found = cool_down(1, "board", LIMITS, lambda: Snapshot(BOARD, zones), fail)
    assert (found.hot, found.waited_s, found.blind) == ("", 0.0, False)
    assert found.hottest == ("CPU-therm", 41.0)
    blind = cool_down(1, "board", LIMITS, lambda: Snapshot(BOARD, zones[1:]), fail)
    assert (blind.hot, blind.blind) == ("", True)
    assert blind.unread == "no thermal zone of the processor (the warmest is PMIC-Die)"


def test_a_status_that_nobody_measured_has_its_reason() -> None:
    facts = replace(PHONE, thermal_status=None, unread=("thermal_status: the HAL isn't ready",))
    found = cool_down(1, "phone", ThermalLimits(), lambda: Snapshot(facts, ()), fail)
    assert (found.blind, found.unread) == (True, "the HAL isn't ready")


def fail(_text: str, _seconds: float) -> None:
    pytest.fail("nothing to wait for")


@pytest.mark.parametrize(
    ("facts", "kind", "limits"),
    [
        (BOARD, "board", LIMITS),
        (BOARD, "phone", LIMITS),
        (replace(PHONE, thermal_status=None), "phone", ThermalLimits()),
    ],
)
def test_a_device_that_tells_nothing_is_blind(
    facts: DeviceFacts, kind: DeviceClass, limits: ThermalLimits
) -> None:
    start = Room(facts).start(kind, limits)
    assert (start.blind, start.hot, start.waited_s) == (True, "", 0.0)


@pytest.mark.parametrize("kind", ["server", "vm"])
def test_nobody_waits_for_a_server(kind: DeviceClass) -> None:
    room = Room(BOARD, zone_c=90.0)
    assert room.start(kind) == Start(2, 0.0, "", blind=False)


@pytest.mark.parametrize(
    ("start", "found"),
    [
        (Start(1, 0.0, "", blind=False, battery_c=31.0), (31.0, 37.0)),
        (Start(1, 0.0, "", blind=False, hottest=("cpu-thermal", 60.0)), (60.0, ZONE_MAX_C)),
        # What isn't on the die says nothing of the clocks, and neither does a server.
        (Start(1, 0.0, "", blind=True, hottest=("nvme", 60.0)), None),
        (Start(1, 0.0, "", blind=False), None),
    ],
)
def test_what_people_are_shown_is_what_decides(
    start: Start, found: tuple[float, float | None] | None
) -> None:
    assert heat(start, LIMITS) == found
