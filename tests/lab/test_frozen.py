"""Many devices that stop answering at once, and one beside them that must not notice.

All are real: 16 adbd and 16 sshd devices in namespaces of their own, every process stopped.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.device import DeviceEntry
from farm.core.events import JobFinished, JobProgress
from farm.site.context import Limits
from farm.transports import open as open_transport
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]
RUNNING = 'sleep 0.5; echo "{\\"progress\\": [\\"decode\\", 1, 9]}"; sleep 1000\n'


def round_trip_s(entry: DeviceEntry) -> float:
    """Median time of a program that does nothing, on a connection of its own."""
    transport = open_transport(entry)
    try:
        assert transport.run(Command(("true",))).ok
        times = []
        for _ in range(20):
            started = time.monotonic()
            assert transport.run(Command(("true",))).ok
            times.append(time.monotonic() - started)
        return statistics.median(times)
    finally:
        transport.close()


async def job_s(bench: SiteBench, name: str, device: str) -> float:
    """Run a job beside others, and return the seconds it took."""
    started = time.monotonic()
    await bench.agent.submit([bench.job(GOOD, name=name, device=device)])
    while True:
        for item in await bench.polled(0.2):
            bench.seq = item.seq
            if isinstance(item.event, JobFinished) and item.event.job_id == name:
                assert item.event.error is None, item.event.error
                return time.monotonic() - started


async def until_all_run(bench: SiteBench, names: set[str]) -> None:
    """Wait until the program of every one of these devices runs."""
    end = time.monotonic() + 120
    while names:
        assert time.monotonic() < end, names
        for item in await bench.polled(0.5):
            bench.seq = item.seq
            assert not isinstance(item.event, JobFinished), item.event.error
            if isinstance(item.event, JobProgress) and item.event.unit == "tokens":
                names.discard(item.event.device)


def test_healthy_device_beside_32_frozen_ones_is_not_disturbed(
    adb_device: Factory, ssh_device: Factory, tmp_path: Path
) -> None:
    healthy = [adb_device(), ssh_device()]
    others = [make(disk_mb=80) for make in (adb_device, ssh_device) for _ in range(16)]
    entries = tuple(machine.entry for machine in (*healthy, *others))

    async def scenario() -> None:
        limits = Limits(stale_s=60.0, poll_s=1.0, reconnect_s=30.0, clean_s=3.0)
        bench = SiteBench(tmp_path, entries=entries, limits=limits)
        devices = await bench.agent.inventory(entries, adb_auto=False)
        assert {device.state for device in devices} == {"ready"}, devices
        before = {machine.name: round_trip_s(machine.entry) for machine in healthy}
        for machine in healthy:  # the first deploys
            await job_s(bench, f"warm:{machine.name}", machine.name)
        alone = {m.name: await job_s(bench, f"alone:{m.name}", m.name) for m in healthy}
        names = {machine.name for machine in others}
        jobs = [bench.job(RUNNING, name=f"stuck:{name}", device=name) for name in names]
        await bench.agent.submit(jobs)
        await until_all_run(bench, names)
        for machine in others:
            machine.freeze()
        for machine in healthy:
            beside = await asyncio.to_thread(round_trip_s, machine.entry)
            # Below 50 ms; where this machine itself is too busy for that, no slower than before.
            assert beside < max(0.05, 1.5 * before[machine.name])
            took = await job_s(bench, f"beside:{machine.name}", machine.name)
            assert took < 2 * alone[machine.name] + 1.0
        started = time.monotonic()
        await bench.agent.close()
        assert time.monotonic() - started < 4.5
        for machine in others:
            machine.thaw()

    asyncio.run(scenario())
