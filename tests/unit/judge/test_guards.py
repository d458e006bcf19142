from __future__ import annotations

import pytest

from farm.core.device import ThermalLimits
from farm.judge.guards import (
    Guard,
    backend_guard,
    device_class,
    environment_guards,
    spread_guard,
    trust_of,
    window_guard,
)
from tests.unit.judge.builders import facts


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"os": "Android 15", "abi": "arm64-v8a"}, "phone"),
        ({"sdk": 34}, "phone"),
        ({"libc": "bionic"}, "phone"),
        ({"model": "Raspberry Pi 5 Model B Rev 1.0", "abi": "arm64-v8a"}, "board"),
        ({"model": "NVIDIA Jetson Orin NX", "abi": "arm64-v8a", "virtualised": False}, "board"),
        ({"abi": "arm64-v8a", "cores": 8, "virtualised": False}, "board"),
        ({"abi": "arm64-v8a", "cores": 8, "virtualised": True}, "server"),
        ({"abi": "arm64-v8a", "cores": 128}, "server"),
        ({"abi": "x86_64", "virtualised": True}, "server"),
    ],
)
def test_device_classes(changes: dict[str, object], expected: str) -> None:
    assert device_class(facts(**changes)) == expected


def test_a_label_overrules_the_facts() -> None:
    assert device_class(facts(), (("class", "board"),)) == "board"


def test_a_server_needs_no_guard_that_only_its_host_can_see() -> None:
    assert environment_guards(facts(), ThermalLimits(), "server") == [Guard("emulated", "ok")]


def test_a_phone_needs_more_than_can_be_read() -> None:
    guards = environment_guards(facts(thermal_status=0), ThermalLimits(), "phone")
    assert {g.name: g.state for g in guards} == {
        "emulated": "ok",
        "hot_start": "ok",
        "clock_cap": "unavailable",
        "hidden_cap": "unavailable",
    }
    assert trust_of(guards) == "unverified"


@pytest.mark.parametrize(
    ("model", "guard"), [("Raspberry Pi 4 Model B", "under_voltage"), ("Jetson Orin", "power_mode")]
)
def test_boards_with_a_guard_of_their_own(model: str, guard: str) -> None:
    guards = environment_guards(facts(model=model), ThermalLimits(), "board")
    assert guard in {g.name for g in guards}


@pytest.mark.parametrize(
    ("changes", "limit", "state"),
    [
        ({"thermal_status": 2}, None, "flagged"),
        ({"battery_c": 39.0}, 37.0, "flagged"),
        ({"battery_c": 30.0}, 37.0, "ok"),
        ({"battery_c": 30.0}, None, "unavailable"),
        ({}, 37.0, "unavailable"),
    ],
)
def test_hot_start(changes: dict[str, object], limit: float | None, state: str) -> None:
    guards = environment_guards(facts(**changes), ThermalLimits(limit), "phone")
    assert next(g.state for g in guards if g.name == "hot_start") == state


def test_backend_window_and_spread() -> None:
    assert backend_guard("xnnpack", "xnnpack").state == "ok"
    assert "portable ran" in backend_guard("xnnpack", "portable").detail
    assert backend_guard("xnnpack", None).state == "unavailable"
    assert window_guard(0.099).state == "flagged"
    assert window_guard(0.1).state == "ok"
    assert [spread_guard(s).state for s in (0.051, 0.05, None)] == ["flagged", "ok", "unavailable"]


@pytest.mark.parametrize(
    ("guards", "trust"),
    [
        ([Guard("spread", "ok"), Guard("emulated", "ok")], "ok"),
        ([Guard("spread", "flagged"), Guard("clock_cap", "unavailable")], "noisy"),
        ([Guard("spread", "flagged"), Guard("emulated", "flagged")], "invalid"),
        ([Guard("window", "flagged")], "unverified"),
        ([Guard("clock_cap", "unavailable")], "unverified"),
        ([Guard("hot_start", "flagged")], "invalid"),
        ([Guard("token_count", "flagged")], "invalid"),
    ],
)
def test_trust(guards: list[Guard], trust: str) -> None:
    assert trust_of(guards) == trust
