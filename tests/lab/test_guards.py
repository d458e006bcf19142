"""Guards against faults that are made for real: a quota, a falling clock, heat, other programs.

The program that runs is a shell script that takes its time; telemetry, thermal gate and judgement
are the real ones.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.core.device import DeviceEntry, ThermalLimits
from farm.core.events import JobFinished, JobProgress
from farm.core.rules.classes import DeviceClass
from farm.core.runtime import DeviceRunResult, LaunchRequest, Measure
from farm.judge.environment import environment_guards
from farm.judge.guards import Guard, trust_of
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD
from tests.lab.machine import Machine
from tests.lab.made_sys import CAPPED_KHZ, CEILING, RUNS_UNTIL_CAPPED, ZONE
from tests.lab.test_site_jobs import Factory

pytestmark = pytest.mark.lab

TIMED = LaunchRequest(1, measures=(Measure("tg64", 0, 64, 0, 1, 0),), timeout_s=120.0)
#: Some tenths of a second of CPU time.
BUSY = "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done\n"


def run(
    folder: Path,
    entry: DeviceEntry,
    script: str,
    on_progress: Callable[[JobProgress], None] = lambda _event: None,
    **changes: Any,
) -> tuple[DeviceRunResult, list[Guard], DeviceClass]:
    """Run one timed launch of a script; return what came of it and the device's guards.

    `changes` are fields of the job.
    """

    async def scenario() -> tuple[DeviceRunResult, list[Guard]]:
        bench = SiteBench(folder, entries=(entry,))
        (device,) = await bench.agent.inventory([entry], adb_auto=False)
        assert device.facts is not None, device
        job = bench.job(script + GOOD, device=entry.name, launches=(TIMED,), **changes)
        await bench.agent.submit([job])
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline:
            for item in await bench.polled(0.3):
                bench.seq = item.seq
                if isinstance(item.event, JobProgress):
                    on_progress(item.event)
                if isinstance(item.event, JobFinished):
                    assert item.event.result is not None, item.event.error
                    await bench.agent.close()
                    found = item.event.result
                    return found, environment_guards(device.facts, entry, kind, found)
        raise AssertionError("the job didn't end")

    kind: DeviceClass = "phone" if entry.transport == "adb" else "board"
    result, guards = asyncio.run(scenario())
    return result, guards, kind


def guard(guards: list[Guard], name: str) -> Guard:
    return next(guard for guard in guards if guard.name == name)


def test_a_cpu_quota_shows_in_fixed_work_and_in_the_throttle_count(
    ssh_device: Factory, tmp_path: Path
) -> None:
    board = ssh_device(sensors=True)
    board.limit_cpu(0.1)
    result, guards, _ = run(tmp_path, board.entry, BUSY)
    (said,) = result.telemetry
    assert said.before is not None
    assert said.before.share < 0.6
    assert said.throttled
    assert said.clocks[0].lowest_khz == said.clocks[0].highest_khz, "no clock shows a quota"
    found = guard(guards, "hidden_cap")
    assert found.state == "flagged", found
    assert trust_of(guards) == "invalid"


def test_a_ceiling_that_falls_while_a_job_runs(ssh_device: Factory, tmp_path: Path) -> None:
    board = ssh_device(sensors=True)

    def cap(event: JobProgress) -> None:
        if event.unit == "tokens":
            board.set_sensor(CEILING, f"{CAPPED_KHZ}\n")

    _, guards, _ = run(tmp_path, board.entry, RUNS_UNTIL_CAPPED, cap)
    found = guard(guards, "clock_cap")
    assert (found.state, found.detail) == ("flagged", "policy0 from 2400 to 1500 MHz")
    assert trust_of(guards) == "invalid"


def test_a_hot_board_is_waited_for_in_view(ssh_device: Factory, tmp_path: Path) -> None:
    board = ssh_device(sensors=True)
    board.set_sensor(ZONE, "90000\n")
    seen: list[str] = []

    def cool(event: JobProgress) -> None:
        if event.stage == "cooldown":
            seen.append(event.detail)
            board.set_sensor(ZONE, "45000\n")

    # By its facts it is a virtual machine, whose heat is nobody's business.
    labels = (("class", "board"),)
    entry = replace(board.entry, labels=labels, thermal=ThermalLimits(wait_max_s=60.0))
    result, guards, _ = run(tmp_path, entry, "sleep 0.5\n", cool)
    assert seen[0].startswith("cooling down: cpu-thermal 90.0 °C, limit 70 (waits ")
    (start,) = result.starts
    assert (start.hot, start.blind) == ("", False)
    assert start.waited_s >= 5.0
    assert guard(guards, "hot_start").state == "ok"


def test_a_battery_that_stays_hot_flags_the_start(adb_device: Factory, tmp_path: Path) -> None:
    phone = adb_device(sensors=True)
    battery = phone.disk / "sim" / "battery"
    battery.write_text(battery.read_text().replace("temperature: 312", "temperature: 402"))
    entry = replace(phone.entry, thermal=ThermalLimits(battery_max_c=37.0, wait_max_s=1.0))
    _, guards, _ = run(tmp_path, entry, "sleep 0.5\n")
    found = guard(guards, "hot_start")
    assert found.state == "flagged"
    assert found.detail.startswith("battery 40.2 °C, limit 37")
    assert trust_of(guards) == "invalid"


@pytest.mark.parametrize("sensors", [True, False])
def test_a_hidden_sensor_is_unavailable_never_ok(
    adb_device: Factory, tmp_path: Path, sensors: bool
) -> None:
    phone = adb_device(sensors=sensors)
    _, guards, _ = run(tmp_path, phone.entry, "sleep 0.5\n")
    assert guard(guards, "clock_cap").state == ("ok" if sensors else "unavailable")
    # The phone's thermal service tells its status: that is enough without a battery limit.
    assert guard(guards, "hot_start").state == "ok"
    needed = [one for one in guards if one.name not in ("load", "hidden_cap")]
    assert trust_of(needed) == ("ok" if sensors else "unverified")


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep so many cores busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_other_programs_are_seen(tmp_path: Path) -> None:
    entry = DeviceEntry("here", "local", root=str(tmp_path / "device"))
    with busy_loops(1):
        result, guards, _ = run(tmp_path, entry, "sleep 2\n")
    found = guard(guards, "load")
    assert found.state == "flagged", result.telemetry
    assert "other programs used" in found.detail


def test_no_sampler_outlives_its_job(ssh_device: Factory, tmp_path: Path) -> None:
    board: Machine = ssh_device(sensors=True)
    result, _, _ = run(tmp_path, board.entry, "sleep 1.2\n")
    assert result.telemetry[0].samples >= 3
    assert result.telemetry[0].cost < 0.01
    assert not board.runs("farm-helper")
