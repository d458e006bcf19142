"""Objects on their way to a device: verified, resumed, repaired, named when they are missing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from farm.core.artifact import ObjectRef
from farm.core.errors import (
    StorageFull,
    StoreError,
    TransferError,
)
from farm.core.runner import DeployFile
from farm.paths import store_root
from farm.store.objects import ContentStore
from tests.contract.site_bench import SiteBench, sim_bench
from tests.contract.toy_runner import GOOD, PROGRAM


def test_artifact_that_changed_on_the_device_is_found_before_the_verdict(bench: SiteBench) -> None:
    """Same size, same times: only the content tells."""
    model = GOOD + 'object=$(readlink -f model.pte); touch -r "$object" stamp\n'
    model += 'tr 1 2 < model.pte > changed; cat changed > "$object"; touch -r stamp "$object"\n'

    async def scenario() -> None:
        job = bench.job(model)
        finished = await bench.run(job)
        assert isinstance(finished.error, TransferError)
        assert "not what was deployed" in finished.error.message
        assert bench.left_behind() == []
        repaired = await bench.run(bench.job(GOOD, name="cell:b", artifact=job.artifact))
        assert repaired.error is not None  # it damages itself again
        sha = job.artifact[0].object.sha256
        assert bench.store.path(sha).read_bytes() == model.encode()
        await bench.agent.close()

    asyncio.run(scenario())


def test_damaged_object_on_the_device_is_replaced(bench: SiteBench) -> None:
    async def scenario() -> None:
        job = bench.job(GOOD)
        await bench.run(job)
        on_device = bench.root / "objects" / job.artifact[0].object.sha256
        on_device.write_text(GOOD.replace("1", "2"))
        finished = await bench.run(bench.job(GOOD, name="cell:b"))
        assert finished.error is None
        assert finished.result is not None
        assert finished.result.deployed.pushed_bytes == len(GOOD)
        assert on_device.read_text() == GOOD
        await bench.agent.close()

    asyncio.run(scenario())


def test_broken_push_is_resumed_and_a_damaged_rest_sent_whole(bench: SiteBench) -> None:
    async def scenario() -> None:
        await bench.run(bench.job(GOOD))
        for index, part in enumerate((GOOD[:20], "x" * 20, GOOD + "more")):
            job = bench.job(f"# {index}\n" + GOOD, name=f"cell:{index}")
            text = f"# {index}\n" + GOOD
            ref = job.artifact[0].object
            begun = text[:20] if part == GOOD[:20] else part
            (bench.root / "objects" / f"{ref.sha256}.part").write_text(begun)
            finished = await bench.run(job)
            assert finished.error is None, finished.error
            assert finished.result is not None
            if index == 0:
                assert finished.result.deployed.pushed_bytes == ref.size_bytes - 20
        await bench.agent.close()

    asyncio.run(scenario())


def test_push_that_breaks_again_and_again_sends_each_byte_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = sim_bench(tmp_path, drop_after_bytes=str(3 << 20))
        job = bench.job(GOOD + "exit 0\n" + "#" * (8 << 20), device="sim")
        finished = await bench.run(job)
        assert finished.error is None, finished.error
        assert finished.result is not None
        deployed = finished.result.deployed
        size = job.artifact[0].object.size_bytes + len(PROGRAM)
        assert (deployed.pushed_bytes, deployed.skipped_bytes) == (size, 0)
        text = (tmp_path / "sim" / "objects" / job.artifact[0].object.sha256).read_text()
        assert len(text) == job.artifact[0].object.size_bytes
        await bench.agent.close()

    asyncio.run(scenario())


def test_push_over_a_trickling_link_ends_with_the_jobs_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = sim_bench(tmp_path, bytes_per_s=str(2 << 20))
        job = bench.job("#" * (40 << 20), device="sim", timeout_s=4.0)
        finished = await bench.run(job)
        assert isinstance(finished.error, TransferError), finished.error
        assert "the job's time of 4 s was over after" in finished.error.message
        assert list((tmp_path / "sim" / "work").glob("*")) == []
        await bench.agent.close()

    asyncio.run(scenario())


def test_device_that_fills_up_in_the_middle_of_a_push(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = sim_bench(tmp_path, storage_bytes=str(6 << 20))
        finished = await bench.run(bench.job("#" * (8 << 20), device="sim"))
        assert isinstance(finished.error, StorageFull)
        assert list((tmp_path / "sim" / "work").glob("*")) == []
        await bench.agent.close()

    asyncio.run(scenario())


def test_object_that_left_the_store_is_named(bench: SiteBench) -> None:
    async def scenario() -> None:
        job = bench.job(GOOD)
        bench.store.remove(job.artifact[0].object.sha256)
        finished = await bench.run(job)
        assert isinstance(finished.error, StoreError)
        assert "model.pte" in finished.error.message
        await bench.agent.close()

    asyncio.run(scenario())


def test_ensure_brings_objects_of_another_store(bench: SiteBench, tmp_path: Path) -> None:
    other = ContentStore(store_root(tmp_path / "other"))
    ref = other.put_bytes(b"weights", "model.pte")

    async def scenario() -> None:
        await bench.agent.ensure([ref], str(tmp_path / "other"))
        assert bench.store.path(ref).read_bytes() == b"weights"
        await bench.agent.ensure([ref], str(bench.home))
        missing = ObjectRef("0" * 64, 3, "lost.pte")
        with pytest.raises(StoreError, match=r"lost\.pte"):
            await bench.agent.ensure([missing], str(tmp_path / "other"))
        with pytest.raises(StoreError, match=r"lost\.pte"):
            await bench.agent.ensure([missing], str(bench.home))
        await bench.agent.close()

    asyncio.run(scenario())


def test_external_weights_are_deployed_beside_the_program(bench: SiteBench) -> None:
    async def scenario() -> None:
        data = bench.store.put_bytes(b"ptd", "weights.ptd")
        job = bench.job(GOOD + 'test "$(cat weights.ptd)" = ptd || exit 5\n')
        job = bench.job(
            GOOD
            + 'test "$(cat weights.ptd)" = ptd || exit 5\ntest "$TOY" = "yes it\'s" || exit 6\n',
            artifact=(job.artifact[0], DeployFile(data, "weights.ptd")),
        )
        assert (await bench.run(job)).error is None
        await bench.agent.close()

    asyncio.run(scenario())
