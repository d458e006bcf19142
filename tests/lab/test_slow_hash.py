"""Hashing on the device that outlasts the lease, while another controller wants the device."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.core.errors import LeaseError
from farm.core.events import JobFinished
from farm.site.context import Limits
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

LEASE_S = 1.0
#: Notes each run of the program in a file that cleaning leaves alone.
PLACE = "/data/local/tmp/runs"
NOTED = f"echo run >> {PLACE}\n{GOOD}exit 0\n"


async def hash_of(machine: Machine) -> int:
    """Process that hashes the job's objects for the last time, caught at it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = [pid for pid, words in machine.processes().items() if "--rehash" in words]
        if found:
            return min(found)  # the other one is its child
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was hashed")


def test_finished_work_is_kept_and_nobody_comes_in_between(
    adb_device: Callable[..., Machine], tmp_path: Path
) -> None:
    """One result, no second run: whoever asks during the last hash still waits."""
    machine = adb_device(disk_mb=512)

    def bench(name: str) -> SiteBench:
        folder = tmp_path / name
        folder.mkdir()
        return SiteBench(folder, entries=(machine.entry,), limits=Limits(lease_s=LEASE_S))

    async def scenario() -> None:
        first, second = bench("first"), bench("second")
        model = NOTED + "#" * (128 << 20)
        await first.start(first.job(model, device=machine.name))
        hashing = await hash_of(machine)
        os.kill(hashing, signal.SIGSTOP)  # as a disk that keeps it waiting
        refused = 0

        async def ask() -> None:
            nonlocal refused
            while True:
                attempt = refused + 1
                job = second.job(NOTED, device=machine.name, run_id="run-2", attempt=attempt)
                error = (await second.run(job)).error
                assert isinstance(error, LeaseError), error
                refused += 1

        asking = asyncio.create_task(ask())
        await asyncio.sleep(3 * LEASE_S)
        assert not asking.done(), asking
        assert refused > 0
        asking.cancel()
        os.kill(hashing, signal.SIGCONT)
        finished = (await first.events())[-1]
        assert isinstance(finished, JobFinished)
        assert finished.error is None, finished.error
        await first.agent.close()
        await second.agent.close()

    asyncio.run(scenario())
    assert machine.host_path(PLACE).read_text() == "run\n"
