"""Jobs on real adb and ssh devices: facts, deploy, run, collect, clean."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.core.events import JobFinished, JobProgress
from farm.core.runtime import LaunchRequest
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]


@pytest.fixture(params=["adb", "ssh"])
def machine(request: pytest.FixtureRequest) -> Machine:
    factory: Factory = request.getfixturevalue(f"{request.param}_device")
    return factory()


def left_on(machine: Machine) -> list[str]:
    """Processes of jobs, and work folders."""
    found = [" ".join(words) for words in machine.processes().values()]
    jobs = [text for text in found if "toy" in text or "supervise" in text or "sleep" in text]
    return jobs + machine.work_folders()


def test_job_on_a_device(machine: Machine, tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,))
        (device,) = await bench.agent.inventory([machine.entry], adb_auto=False)
        facts = device.facts
        assert facts is not None, device.reason
        assert (device.state, facts.abi) == ("ready", "x86_64")
        assert not facts.emulated
        assert facts.storage_free_bytes is not None
        if machine.entry.transport == "adb":
            assert (facts.identity, facts.os, facts.sdk) == (machine.name, "Android 14", 34)
            assert (facts.battery_c, facts.battery_level) == (31.2, 87)
            assert facts.thermal_status == 0
        launches = (LaunchRequest(1), LaunchRequest(1))
        job = bench.job(GOOD, device=machine.name, launches=launches)
        finished = await bench.run(job)
        assert finished.error is None, finished.error
        assert finished.result is not None
        ref = finished.result.launches[0].logits[0][1]
        assert bench.store.path(ref.object).read_bytes() == bytes(24)
        again = await bench.run(bench.job(GOOD, name="cell:b", device=machine.name))
        assert again.result is not None
        assert again.result.deployed.pushed_bytes == 0
        assert left_on(machine) == []
        await bench.agent.close()

    asyncio.run(scenario())


def test_one_machine_on_two_connections_is_one_device(adb_device: Factory, tmp_path: Path) -> None:
    machine = adb_device()

    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,))
        twin = type(machine.entry)(
            name="over-the-air",
            transport="adb",
            serial=machine.entry.serial,
            adb_server=machine.entry.adb_server,
        )
        bench.agent._discover = lambda _named, _site: [twin]
        devices = await bench.agent.inventory([machine.entry], adb_auto=True)
        assert [device.name for device in devices] == [machine.name]
        await bench.agent.close()

    asyncio.run(scenario())


def test_the_helper_appears_whole_or_not_at_all(adb_device: Factory, tmp_path: Path) -> None:
    """Else a second connection finds what isn't a program yet, and replaces it under the first."""
    machine = adb_device()
    machine.slow_shell(0.3)  # what makes a program of a pushed file comes late

    async def scenario() -> set[int]:
        bench = SiteBench(tmp_path, entries=(machine.entry,))
        looking = asyncio.create_task(bench.agent.inventory([machine.entry], adb_auto=False))
        modes = set()
        while not looking.done():
            for path in machine.disk.glob(f"**/farm-helper-{'?' * 64}"):
                modes.add(path.stat().st_mode & 0o777)
            await asyncio.sleep(0.005)
        (device,) = looking.result()
        assert device.state == "ready", device.reason
        await bench.agent.close()
        return modes

    assert asyncio.run(scenario()) == {0o700}


def test_system_service_that_hangs_costs_only_its_facts(
    adb_device: Factory, tmp_path: Path
) -> None:
    machine = adb_device()
    battery = machine.disk / "sim" / "battery"
    battery.unlink()
    os.mkfifo(battery)
    battery.chmod(0o666)

    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,))
        (device,) = await bench.agent.inventory([machine.entry], adb_auto=False)
        assert device.state == "ready", device.reason
        assert device.facts is not None
        assert (device.facts.battery_c, device.facts.thermal_status) == (None, 0)
        assert any(line.startswith("battery_c") for line in device.facts.unread)
        await bench.agent.close()

    asyncio.run(scenario())


def test_cancelled_job_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,))
        await bench.start(
            bench.job(
                'echo \'{"progress": ["decode", 1, 9]}\'; sleep 1000 & sleep 1000',
                device=machine.name,
            )
        )
        await bench.until_stage("check")
        await asyncio.sleep(0.5)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await bench.agent.cancel("run-1", ["cell:a"])
        events = await bench.events()
        assert loop.time() - started < 3.0
        assert isinstance(events[-1], JobFinished)
        assert left_on(machine) == []
        await bench.agent.close()

    asyncio.run(scenario())


def test_device_with_only_a_shell(adb_device: Factory, tmp_path: Path) -> None:
    machine = adb_device(only=("sh", "cat", "chmod"))

    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,))
        # The toy is a shell script and has nothing but builtins here.
        model = "echo '{\"done\": true}'"
        program = bench.folder / "toy"
        assert program.is_dir()
        job = bench.job(model, device=machine.name)
        finished = await bench.run(job)
        assert finished.error is None, finished.error
        assert left_on(machine) == []
        await bench.agent.close()

    asyncio.run(scenario())


def test_progress_counts_pushed_bytes(machine: Machine, tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, entries=(machine.entry,))
        model = GOOD + "exit 0\n" + "#" * (24 << 20)
        await bench.start(bench.job(model, device=machine.name))
        events = await bench.events()
        finished = events[-1]
        assert isinstance(finished, JobFinished)
        assert finished.error is None, finished.error
        pushed = [e for e in events if isinstance(e, JobProgress) and e.unit == "bytes"]
        assert [e.done for e in pushed] == sorted(e.done for e in pushed)
        assert {e.total for e in pushed} - {0} == {finished.result.deployed.pushed_bytes}  # type: ignore[union-attr]
        await bench.agent.close()

    asyncio.run(scenario())
