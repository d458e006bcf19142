from __future__ import annotations

from dataclasses import replace

import pytest

from farm.core.device import CoreCluster, DeviceEntry, DeviceFacts
from farm.core.rules.classes import device_class
from farm.core.runtime import DeviceRunResult
from farm.core.telemetry import Calibration, ClockRange, CoreSpeed, LaunchTelemetry, Usual
from farm.judge.environment import environment_guards, hidden_cap, load
from farm.judge.guards import (
    Guard,
    backend_guard,
    no_language_perplexity,
    spread_guard,
    trust_of,
    window_guard,
)
from tests.unit.judge.builders import calibration, facts, run_of, start, telemetry

ENTRY = DeviceEntry("d", "ssh")
PI = facts(model="Raspberry Pi 5 Model B", abi="arm64-v8a", virtualised=False, cores=4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"os": "Android 15", "abi": "arm64-v8a"}, "phone"),
        ({"sdk": 34}, "phone"),
        ({"libc": "bionic"}, "phone"),
        ({"model": "Raspberry Pi 5 Model B Rev 1.0", "abi": "arm64-v8a"}, "board"),
        ({"model": "NVIDIA Jetson Orin NX", "abi": "arm64-v8a", "virtualised": False}, "board"),
        ({"abi": "arm64-v8a", "cores": 8, "virtualised": False}, "board"),
        ({"abi": "arm64-v8a", "cores": 8, "virtualised": True}, "vm"),
        ({"abi": "arm64-v8a", "cores": 128}, "server"),
        ({"abi": "x86_64", "virtualised": True}, "vm"),
        ({"abi": "x86_64", "virtualised": False}, "server"),
    ],
)
def test_device_classes(changes: dict[str, object], expected: str) -> None:
    assert device_class(facts(**changes)) == expected


def test_a_label_overrules_the_facts() -> None:
    assert device_class(facts(), (("class", "board"),)) == "board"


def states(
    run: DeviceRunResult, about: DeviceFacts | None = None, kind: str = "vm", **entry: object
) -> dict[str, str]:
    about = about or facts()
    found = environment_guards(about, replace(ENTRY, **entry), kind, run)  # type: ignore[arg-type]
    return {guard.name: guard.state for guard in found}


def fired(said: LaunchTelemetry, **options: object) -> set[str]:
    found = states(run_of(telemetry(0), said), **options)  # type: ignore[arg-type]
    return {name for name, state in found.items() if state == "flagged"}


def test_a_server_needs_no_battery_and_no_clock() -> None:
    quiet = telemetry(clocks=(), hottest=None, battery_c=None)
    assert states(run_of(quiet, starts=()), kind="server") == {
        "emulated": "ok",
        "hidden_cap": "ok",
        "load": "ok",
    }


def test_a_phone_that_tells_everything_is_ok() -> None:
    found = states(run_of(telemetry()), kind="phone")
    assert set(found.values()) == {"ok"}
    assert set(found) == {"emulated", "hidden_cap", "load", "clock_cap", "hot_start"}


def test_what_could_not_be_read_is_named() -> None:
    blind = telemetry(clocks=(), after=None, others=None, before=None)
    found = states(run_of(blind, starts=(start(blind=True),)), kind="phone")
    assert {name for name, state in found.items() if state == "unavailable"} == {
        "hidden_cap",
        "load",
        "clock_cap",
        "hot_start",
    }
    assert trust_of([Guard(name, "unavailable") for name in found]) == "unverified"


def test_one_launch_without_a_word_spoils_the_others() -> None:
    found = states(run_of(telemetry(), telemetry(clocks=(), before=None)), kind="phone")
    assert (found["clock_cap"], found["hidden_cap"]) == ("unavailable", "unavailable")


@pytest.mark.parametrize(
    ("lowest", "flagged"), [(2_000_000, False), (1_710_000, False), (1_690_000, True)]
)
def test_a_clock_whose_ceiling_falls_by_more_than_15_percent(lowest: int, flagged: bool) -> None:
    said = telemetry(clocks=(ClockRange("policy0", 2_000_000, lowest),))
    assert ("clock_cap" in fired(said, kind="phone")) is flagged


def test_a_ceiling_that_fell_between_launches() -> None:
    said = telemetry(clocks=(ClockRange("policy0", 1_500_000, 1_500_000),))
    assert "clock_cap" in fired(said, kind="phone")


def test_a_cluster_whose_ceiling_nobody_saw_may_have_been_capped() -> None:
    run = run_of(telemetry(), telemetry(blind_clocks=("policy0",)))
    (found,) = [g for g in environment_guards(PI, ENTRY, "phone", run) if g.name == "clock_cap"]
    assert (found.state, found.detail) == ("unavailable", "no scaling_max_freq of policy0")


CAPPED = Calibration((CoreSpeed(0, 3_200_000), CoreSpeed(1, 3_300_000)), 1.0, 0.0)
DISTURBED = Calibration((CoreSpeed(0, 3_200_000), CoreSpeed(1, 2_510_000)), 1.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "flagged"),
    [
        ({"after": CAPPED}, True),
        # One core of a cluster was disturbed: its other core ran as ever.
        ({"after": DISTURBED}, False),
        ({"after": calibration(2_700_000)}, False),
        ({"before": calibration(share=0.5)}, True),
        # Somebody else had the rest: that is load.
        ({"before": calibration(share=0.5, others=1.0)}, False),
        ({"throttled": 20, "throttled_s": 0.5}, True),
        ({"throttled": 1, "throttled_s": 0.001}, False),
        ({"throttled": 3, "throttled_s": None}, True),
        ({"steal": 0.06}, True),
        ({"steal": 0.04}, False),
    ],
)
def test_hidden_caps(changes: dict[str, object], flagged: bool) -> None:
    assert ("hidden_cap" in fired(telemetry(**changes))) is flagged


def speeds(unit_ns: int, wide_ns: int | None = None) -> tuple[CoreSpeed, ...]:
    return (CoreSpeed(0, unit_ns, wide_ns), CoreSpeed(1, unit_ns, wide_ns))


@pytest.mark.parametrize(
    ("usual", "detail"),
    [
        ((), ""),
        (speeds(2_400_000, 2_000_000), ""),
        (speeds(3_000_000, 3_000_000), ""),
        (speeds(2_000_000), "fixed work took 25% longer than in earlier jobs on cores 0-1"),
        (
            speeds(2_500_000, 1_600_000),
            "fixed work that fills the core took 25% longer than in earlier jobs on cores 0-1",
        ),
    ],
)
def test_a_job_that_was_slow_from_its_start_is_seen_beside_earlier_ones(
    usual: tuple[CoreSpeed, ...], detail: str
) -> None:
    point = Calibration(speeds(2_500_000, 2_000_000), 1.0, 0.0)
    found = hidden_cap(facts(), [telemetry(before=point, after=point)], Usual(usual))
    assert (found.state, found.detail) == ("flagged" if detail else "ok", detail)


def test_a_core_that_somebody_began_to_share_during_a_launch() -> None:
    said = telemetry(
        before=Calibration(speeds(2_500_000, 2_000_000), 1.0, 0.0),
        after=Calibration(speeds(2_510_000, 2_800_000), 1.0, 0.0),
    )
    found = hidden_cap(facts(), [said], Usual())
    assert found.detail == "fixed work that fills the core took 40% longer on cores 0-1"


@pytest.mark.parametrize(
    ("times", "usual", "detail"),
    [
        ((100, 120, 110, 125), None, ""),
        ((100, 120, 110, 125), 101, ""),
        ((100, 120, 110, 140), None, "memory answered 40% slower at times"),
        # One reading of twenty says nothing.
        ((100, *[110] * 18, 190), None, ""),
        ((115, 120, 110, 125), 100, "memory answered 18% slower than in earlier jobs"),
    ],
)
def test_memory_that_somebody_unseen_uses_is_load(
    times: tuple[int, ...], usual: int | None, detail: str
) -> None:
    said = [
        telemetry(
            before=calibration(memory_ns=before), after=calibration(memory_ns=after), others=0.0
        )
        for before, after in zip(times[::2], times[1::2], strict=True)
    ]
    found = load(facts(), said, Usual(memory_ns=usual))
    assert (found.state, found.detail) == ("flagged" if detail else "ok", detail)


def test_a_cap_on_one_cluster_is_seen_beside_a_fast_one() -> None:
    about = facts(clusters=(CoreCluster((0,), None, None), CoreCluster((1,), None, None)))
    assert "hidden_cap" in fired(telemetry(after=DISTURBED), about=about)


@pytest.mark.parametrize(
    ("changes", "cores", "flagged"),
    [
        ({"others": 0.2}, 2, False),
        ({"others": 1.0}, 2, True),
        ({"others": 1.0}, 128, False),
        # A launch too short to tell is judged by what was around it.
        ({"others": None, "before": calibration(others=1.0)}, 2, True),
        ({"others": None}, 2, False),
    ],
)
def test_load(changes: dict[str, object], cores: int, flagged: bool) -> None:
    assert ("load" in fired(telemetry(**changes), about=facts(cores=cores))) is flagged


def test_a_hot_start_says_how_long_it_waited() -> None:
    run = run_of(telemetry(), starts=(start(hot="battery 39.0 °C, limit 37", waited_s=600.0),))
    found = environment_guards(facts(), ENTRY, "phone", run)
    guard = next(guard for guard in found if guard.name == "hot_start")
    assert guard.state == "flagged"
    assert guard.detail == "battery 39.0 °C, limit 37 after 600 s of waiting"


def test_a_device_that_nobody_measured_is_unverified_and_says_why() -> None:
    blind = start(blind=True, thermal_status=None, unread="the thermal HAL isn't ready")
    found = environment_guards(facts(), ENTRY, "phone", run_of(telemetry(), starts=(blind,)))
    guard = next(guard for guard in found if guard.name == "hot_start")
    assert (guard.state, guard.detail) == ("unavailable", "the thermal HAL isn't ready")
    assert trust_of(found) == "unverified"


STEPS = (("thermal-cpufreq-6", 11),)


@pytest.mark.parametrize(
    ("run", "state"),
    [
        (run_of(telemetry(capped=STEPS)), "flagged"),
        (run_of(telemetry(), starts=(start(capped=STEPS),)), "flagged"),
        # The ceiling fell too, by less than counts: it shows what the step means.
        (run_of(telemetry(clocks=(ClockRange("policy0", 2_000_000, 1_900_000),), capped=STEPS)),
         "ok"),
        (run_of(telemetry()), "ok"),
    ],
)  # fmt: skip
def test_a_cooling_device_is_a_cap_that_ceilings_may_not_show(
    run: DeviceRunResult, state: str
) -> None:
    found = environment_guards(facts(), ENTRY, "phone", run)
    guard = next(guard for guard in found if guard.name == "clock_cap")
    assert guard.state == state
    if state == "flagged":
        assert guard.detail == "cooling device thermal-cpufreq-6 at step 11"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "unavailable"),
        ({"firmware_bits": 0, "firmware_before": 0}, "ok"),
        # It happened before the launch, and no more: history.
        ({"firmware_bits": 0x50000, "firmware_before": 0x50000}, "ok"),
        ({"firmware_bits": 0x50005, "firmware_before": 0}, "flagged"),
        ({"firmware_bits": 0x10000, "firmware_before": 0}, "flagged"),
        ({"voltage_alarm": False}, "ok"),
        ({"voltage_alarm": True}, "flagged"),
    ],
)
def test_under_voltage_of_a_pi(changes: dict[str, object], expected: str) -> None:
    assert states(run_of(telemetry(**changes)), PI, "board")["under_voltage"] == expected


def test_a_cap_by_the_firmware_shows_in_no_clock() -> None:
    assert "clock_cap" in fired(telemetry(firmware_bits=0x4, firmware_before=0), kind="board")


@pytest.mark.parametrize(
    ("modes", "label", "expected"),
    [
        ((), None, "unavailable"),
        (("0",), None, "ok"),
        (("0",), "2", "flagged"),
        (("2",), "2", "ok"),
        (("0", "1"), None, "flagged"),
        (("2 MAXN_SUPER",), "2", "ok"),
        (("2 MAXN_SUPER",), "maxn_super", "ok"),
        (("2 MAXN_SUPER",), "MAXN", "flagged"),
    ],
)
def test_power_mode_of_a_jetson(modes: tuple[str, ...], label: str | None, expected: str) -> None:
    labels = () if label is None else (("power_mode", label),)
    run = run_of(telemetry(power_modes=modes))
    found = states(run, facts(model="NVIDIA Jetson Orin"), "board", labels=labels)
    assert found["power_mode"] == expected


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
        ([Guard("load", "flagged")], "noisy"),
        ([Guard("hidden_cap", "flagged")], "invalid"),
        ([Guard("window", "flagged")], "unverified"),
        ([Guard("clock_cap", "unavailable")], "unverified"),
        ([Guard("hot_start", "flagged")], "invalid"),
        ([Guard("token_count", "flagged")], "invalid"),
    ],
)
def test_trust(guards: list[Guard], trust: str) -> None:
    assert trust_of(guards) == trust


@pytest.mark.parametrize(("vocabulary", "limit"), [(49152, 1000), (512, 256), (0, 1000)])
def test_a_model_of_few_tokens_knows_no_language_at_a_lower_perplexity(
    vocabulary: int, limit: float
) -> None:
    assert no_language_perplexity(vocabulary) == limit


def test_the_hosts_own_device_started_behind_other_programs_is_noisy() -> None:
    def of(*pairs: tuple[str, str], transport: str = "local") -> str | None:
        run = replace(run_of(telemetry()), conditions=pairs)
        return states(run, transport=transport).get("priority")

    assert of(("niceness", "0")) == "ok"
    assert of(("niceness", "15")) == "flagged"
    assert of() == "unavailable"
    assert of(transport="adb") is None
    ok = [Guard("load", "ok")]
    assert trust_of([*ok, Guard("priority", "flagged")]) == "noisy"
    assert trust_of([*ok, Guard("priority", "unavailable")]) == "unverified"
