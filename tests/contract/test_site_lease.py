"""One owner at a time: leases that are respected, renewed and fenced."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from farm.core.device import DeviceEntry
from farm.core.errors import (
    LeaseError,
)
from farm.core.events import JobFinished
from farm.core.lease import Lease, LeaseOwner
from farm.site.context import Limits
from farm.site.device.connection import Connection
from tests.contract.site_bench import SiteBench, sim_bench
from tests.contract.toy_runner import GOOD


def test_device_of_somebody_else_is_left_alone(bench: SiteBench) -> None:
    async def scenario() -> None:
        connection = Connection(bench.local, bench.home)
        theirs = LeaseOwner("ann@desk", "run-9", 4)
        connection.helper.take_lease(theirs)
        (device,) = await bench.agent.inventory([bench.local], adb_auto=False)
        assert (device.state, device.owner) == ("leased", "ann@desk")
        finished = await bench.run(bench.job(GOOD))
        assert isinstance(finished.error, LeaseError)
        assert finished.error.retryable
        assert "ann@desk" in finished.error.message
        kept = connection.helper.show_lease()
        assert isinstance(kept, Lease)
        assert (kept.owner, kept.run_id) == ("ann@desk", "run-9")
        connection.helper.release_lease(theirs)
        assert (await bench.run(bench.job(GOOD, attempt=2))).error is None
        await bench.agent.close()

    asyncio.run(scenario())


async def still_ours(bench: SiteBench, entry: DeviceEntry) -> None:
    """Nobody else gets the device while the job runs, though its first lease is over."""
    await asyncio.sleep(1.5)
    connection = Connection(entry, bench.home)
    with pytest.raises(LeaseError, match="leased by"):
        connection.helper.take_lease(LeaseOwner("ann@desk", "run-9", 1, 1.0))
    connection.close()


def test_lease_is_renewed_while_the_runner_works(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        bench = SiteBench(tmp_path, limits=Limits(lease_s=1.0))
        words = "for i in 1 2 3 4 5 6 7 8; do sleep 0.3; echo '{}'; done\n"
        await bench.start(bench.job(words + GOOD))
        await bench.until_stage("check")
        await still_ours(bench, bench.local)
        finished = (await bench.events())[-1]
        assert isinstance(finished, JobFinished)
        assert finished.error is None, finished.error
        await bench.agent.close()

    asyncio.run(scenario())


def test_lease_is_renewed_during_a_long_push(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = sim_bench(tmp_path, lease_s=1.0, bytes_per_s=str(4 << 20))
        await bench.start(bench.job(GOOD + "exit 0\n" + "#" * (10 << 20), device="sim"))
        await bench.until_stage("deploy")
        await still_ours(bench, bench.entries[0])
        finished = (await bench.events())[-1]
        assert isinstance(finished, JobFinished)
        assert finished.error is None, finished.error
        await bench.agent.close()

    asyncio.run(scenario())


def test_overtaken_epoch_is_refused(bench: SiteBench) -> None:
    async def scenario() -> None:
        assert (await bench.run(bench.job(GOOD, epoch=2))).error is None
        await bench.agent.close()
        # An agent that knows of no later epoch: the device does.
        bench.agent, bench.seq = bench.new_agent(), 0
        finished = await bench.run(bench.job(GOOD, name="cell:b"))
        assert isinstance(finished.error, LeaseError)
        assert "overtaken" in finished.error.message
        await bench.agent.close()

    asyncio.run(scenario())


def test_a_lease_lost_once_the_results_are_there_costs_nothing(bench: SiteBench) -> None:
    stolen = GOOD + 'sed -i \'s/"owner":"[^"]*"/"owner":"ann@desk"/\' ../../lease\n'

    async def scenario() -> None:
        finished = await bench.run(bench.job(stolen))
        assert finished.error is None, finished.error
        connection = Connection(bench.local, bench.home)
        left = connection.helper.show_lease()
        assert left is not None
        assert left.owner == "ann@desk", "what somebody else has by now isn't given back"
        connection.close()
        await bench.agent.close()

    asyncio.run(scenario())
