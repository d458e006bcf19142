"""Faults in the middle of a job, made for real: what is reported, when, and what stays behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from farm.core.errors import DeviceUnfit, FarmError, StorageFull, TransportError
from farm.core.events import JobFinished
from farm.protocols import PROBE_LIMIT_S
from farm.site.context import Limits
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD
from tests.lab.machine import Machine
from tests.lab.test_site_jobs import Factory
from tests.pace import slack

pytestmark = pytest.mark.lab

#: Runs for some seconds, saying so, then ends well.
SLOW = 'for i in 1 2 3 4 5 6; do echo "{\\"progress\\": [\\"decode\\", $i, 6]}"; sleep 1; done\n'

#: Long enough for what the faults do, short enough for a test.
SHORT = Limits(stale_s=9.0, poll_s=1.0, reconnect_s=6.0, clean_s=3.0)


@pytest.fixture(params=["adb", "ssh"])
def machine(request: pytest.FixtureRequest) -> Machine:
    factory: Factory = request.getfixturevalue(f"{request.param}_device")
    return factory()


async def faulty_job(
    bench: SiteBench, machine: Machine, model: str, fault: Callable[[], Awaitable[None]]
) -> tuple[JobFinished, float]:
    """Run a job, make the fault once it runs, and return its end and the seconds it took."""
    await bench.start(bench.job(model, device=machine.name))
    await bench.until_stage("check")
    await asyncio.sleep(1.0)
    started = time.monotonic()
    await fault()
    events = await bench.events(limit_s=120)
    finished = events[-1]
    assert isinstance(finished, JobFinished)
    return finished, time.monotonic() - started


async def in_thread(call: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, call)


def test_power_cut_for_good(machine: Machine, tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,), limits=SHORT)
        finished, seconds = await faulty_job(
            bench, machine, SLOW + GOOD, lambda: in_thread(machine.kill)
        )
        assert isinstance(finished.error, TransportError), finished.error
        assert seconds < 45
        assert (await bench.changed("recovering")).reason
        await in_thread(machine.start)
        assert (await bench.changed("ready")).facts is not None
        await bench.agent.close()

    asyncio.run(scenario())


def test_probe_of_a_frozen_device_is_bounded(machine: Machine, tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,), limits=SHORT)
        await bench.agent.inventory([machine.entry], adb_auto=False)
        machine.freeze()
        started = time.monotonic()
        (device,) = await bench.agent.inventory([machine.entry], adb_auto=False)
        assert time.monotonic() - started < PROBE_LIMIT_S + slack()
        assert (device.state, device.facts) == ("offline", None)
        assert device.reason
        machine.thaw()
        await bench.agent.close()

    asyncio.run(scenario())


def test_cancel_of_a_job_on_a_frozen_device_takes_three_seconds(
    machine: Machine, tmp_path: Path
) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,), limits=SHORT)
        await bench.start(bench.job("sleep 100", device=machine.name))
        await bench.until_stage("check")
        await asyncio.sleep(1.0)
        machine.freeze()
        started = time.monotonic()
        await bench.agent.close()
        assert time.monotonic() - started < 3.0 + slack()
        machine.thaw()

    asyncio.run(scenario())


def test_device_without_space(machine: Machine, tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,), limits=SHORT)
        await bench.agent.inventory([machine.entry], adb_auto=False)
        machine.fill(leave_bytes=8 << 20)
        finished = await bench.run(bench.job(GOOD + "#" * (24 << 20), device=machine.name))
        assert isinstance(finished.error, DeviceUnfit | StorageFull), finished.error
        assert "MiB" in finished.error.message
        machine.unfill()
        again = await bench.run(bench.job(GOOD, name="cell:b", device=machine.name))
        assert again.error is None, again.error
        await bench.agent.close()

    asyncio.run(scenario())


def test_least_recently_used_objects_make_room(machine: Machine, tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,), limits=SHORT)
        first = bench.job(GOOD + "exit 0\n" + "a" * (40 << 20), device=machine.name)
        assert (await bench.run(first)).error is None
        machine.fill(leave_bytes=80 << 20)
        second = bench.job(GOOD + "exit 0\n" + "b" * (40 << 20), name="cell:b", device=machine.name)
        finished = await bench.run(second)
        assert finished.error is None, finished.error
        objects = {path.name for path in machine.disk.glob("**/farm/objects/*")}
        assert first.artifact[0].object.sha256 not in objects
        assert second.artifact[0].object.sha256 in objects
        await bench.agent.close()

    asyncio.run(scenario())


def test_job_dies_with_a_lost_host(machine: Machine, tmp_path: Path) -> None:
    """Nobody polls any more: the device ends the job by itself."""

    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,), limits=SHORT)
        await bench.start(bench.job("sleep 200", device=machine.name))
        await bench.until_stage("check")
        await asyncio.sleep(1.0)
        assert machine.runs("sleep 200")
        machine.network.unplug()
        started = time.monotonic()
        while machine.runs("sleep 200"):
            assert time.monotonic() - started < 9 + 5 * slack()
            await asyncio.sleep(0.5)
        machine.network.heal()
        events = await bench.events(limit_s=60)
        finished = events[-1]
        assert isinstance(finished, JobFinished)
        assert isinstance(finished.error, FarmError)
        await bench.agent.close()

    asyncio.run(scenario())
