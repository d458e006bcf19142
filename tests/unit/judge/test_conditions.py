from __future__ import annotations

from dataclasses import replace

import pytest

from farm.core.device import Device, DeviceEntry
from farm.core.telemetry import CoreSpeed, LaunchState
from farm.judge.conditions import conditions, launch_states
from farm.judge.guards import Guard
from tests.unit.judge.builders import calibration, facts, launch, run_of, telemetry

DEVICE = Device(DeviceEntry("pi", "ssh", host="pi"), facts(), "ready")


def test_the_worst_of_all_launches_is_told() -> None:
    run = run_of(telemetry(steal=0.01, others=0.5), telemetry(2, steal=0.0, others=0.02))
    found = conditions(run, DEVICE, [Guard("load", "flagged", "other programs"), Guard("x", "ok")])
    assert (found["steal"], found["other_programs"]) == ("1.00%", "0.50 cores")
    assert found["guard_load"] == "other programs"
    assert "guard_x" not in found


def test_heat_and_clocks_are_told_launch_by_launch() -> None:
    hot = telemetry(1, hottest=("cpu", 61.5), battery_c=35.0)
    blind = telemetry(2, clocks=())
    unknown = telemetry(9)  # a launch that was given up has no window
    run = replace(run_of(hot, blind, unknown), launches=(launch(1), launch(2)))
    (told,) = launch_states(run)
    assert told == LaunchState(1, 1.0, ("cpu", 61.5), 35.0, hot.clocks)


def test_fixed_work_is_told_without_a_tenth_at_either_end() -> None:
    times = [900_000, *range(1_000_000, 1_009_000, 1000), *[1_020_000] * 9, 1_900_000]
    said = [
        telemetry(
            n,
            before=calibration(before, memory_ns=before // 10),
            after=calibration(after, memory_ns=after // 10),
        )
        for n, (before, after) in enumerate(zip(times[::2], times[1::2], strict=True))
    ]
    found = conditions(run_of(*said), DEVICE, [])
    assert found["fixed_work_us"] == "1001-1020"
    assert found["memory_reads_us"] == "100-102"
    assert "wide_work_us" not in found


@pytest.mark.parametrize(
    ("means", "told"),
    [
        ((None, None), ("1000-1000", "1400-1400")),  # a helper that told no means
        ((1_100_000, 1_600_000), ("1100-1100", "1500-1500")),
    ],
)
def test_the_fastest_core_counts_and_what_its_work_took_on_average(
    means: tuple[int | None, int | None], told: tuple[str, str]
) -> None:
    slow = CoreSpeed(0, 2_000_000, 1_500_000, 2_000_000, 1_500_000)
    cores = (slow, CoreSpeed(1, 1_000_000, 1_400_000, *means))
    point = calibration(cores=cores)
    found = conditions(run_of(telemetry(before=point, after=point)), DEVICE, [])
    assert (found["fixed_work_us"], found["wide_work_us"]) == told
