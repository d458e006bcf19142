"""Hashing on the device that outlasts the lease, while another controller wants the device.

The device's disk is a block device that gives 20 MB/s and of which little fits into memory. A model
of 3 GB under the lease of a minute takes some seven minutes:
`FARM_SLOW_MIB=3072 FARM_SLOW_LEASE_S=60 make test ARGS='-n0 tests/lab/test_slow_hash.py'`
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.core.errors import LeaseError
from farm.core.events import JobFinished, SiteEvent
from farm.core.runner import DeployFile
from farm.site.context import Limits
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

MIB = 1 << 20
SIZE_MIB = int(os.environ.get("FARM_SLOW_MIB", "96"))
LEASE_S = float(os.environ.get("FARM_SLOW_LEASE_S", "1"))
RATE = 20_000_000
HASH_S = SIZE_MIB * MIB / RATE
#: Notes each run of the program in a file that cleaning leaves alone.
PLACE = "/data/local/tmp/runs"
NOTED = f"echo run >> {PLACE}\n{GOOD}exit 0\n"


async def hashing(machine: Machine, events: asyncio.Task[list[SiteEvent]]) -> float:
    """Wait for the job's last hash, the one with results at stake; return when it was seen."""
    while not events.done():
        if any("--rehash" in words for words in machine.processes().values()):
            return time.monotonic()
        await asyncio.sleep(0.1)
    raise AssertionError(f"nothing was hashed: {events.result()}")


def test_finished_work_is_kept_and_nobody_comes_in_between(
    adb_device: Callable[..., Machine], tmp_path: Path
) -> None:
    """One result, no second run: whoever asks during the last hash still waits."""
    machine = adb_device(disk_mb=SIZE_MIB * 9 // 8 + 160, block_disk=True)
    machine.slow_disk(RATE, 64 * MIB)
    limit_s = 120 + 6 * HASH_S

    def bench(name: str) -> SiteBench:
        folder = tmp_path / name
        folder.mkdir()
        return SiteBench(folder, entries=(machine.entry,), limits=Limits(lease_s=LEASE_S))

    async def scenario() -> float:
        first, second = bench("first"), bench("second")
        model = tmp_path / "model"
        with model.open("wb") as file:
            file.write(NOTED.encode())
            file.truncate(SIZE_MIB * MIB)
        large = DeployFile(first.store.put_file(model), "model.pte")
        await first.start(first.job("", device=machine.name, artifact=(large,)))
        events = asyncio.create_task(first.events(limit_s=limit_s))
        seen_at = await hashing(machine, events)
        refused = 0

        async def ask() -> None:
            nonlocal refused
            while True:
                attempt = refused + 1
                job = second.job(NOTED, device=machine.name, run_id="run-2", attempt=attempt)
                error = (await second.run(job, limit_s=limit_s)).error
                if error is None:
                    return
                assert isinstance(error, LeaseError), error
                refused += 1
                await asyncio.sleep(LEASE_S / 4)

        asking = asyncio.create_task(ask())
        finished = (await events)[-1]
        took = time.monotonic() - seen_at
        assert isinstance(finished, JobFinished)
        assert finished.error is None, finished.error
        assert refused > 0, "the other one got the device while it hashed"
        await asyncio.wait_for(asking, limit_s)
        await first.agent.close()
        await second.agent.close()
        return took

    took = asyncio.run(scenario())
    print(f"the last hash of {SIZE_MIB} MiB took {took:.1f} s under a lease of {LEASE_S:g} s")
    # The disk was as slow as it should be, and slower than the lease.
    assert took > max(0.8 * HASH_S, LEASE_S)
    # One run of each controller: the first one's work was not done again.
    assert machine.host_path(PLACE).read_text() == "run\nrun\n"
