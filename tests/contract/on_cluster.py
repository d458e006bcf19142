"""The contracts of sites, pools and stores where Ray is between: run by tests/integration.

Not collected by itself: it needs a cluster, and a process of its own that has joined it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from farm.cluster import start
from farm.cluster.bound import forget_preload
from farm.core.artifact import ObjectRef
from farm.core.errors import StoreError
from farm.core.events import JobFinished, Polled
from farm.core.runtime import DeviceJob
from farm.paths import farm_home, outboxes, store_root
from farm.run.job_data import needed_objects
from farm.site.agent.agent import SiteAgent
from farm.store.objects import ContentStore
from tests.contract.site_bench import SiteBench
from tests.contract.test_pool import (
    test_a_pool_that_closes_ends_what_runs,
    test_a_task_gives_its_result,
    test_an_error_of_a_task_arrives_unchanged,
    test_cancelling_ends_the_processes_of_a_task,
)
from tests.contract.test_site import (
    test_cancel_ends_running_and_queued_jobs_within_three_seconds,
    test_device_of_no_inventory_is_refused,
    test_events_are_kept_until_they_are_acknowledged,
    test_handshake_names_the_tree_and_python,
    test_inventory_keeps_every_entry_whatever_its_state,
    test_job_gives_a_result_with_logits_and_leaves_nothing,
    test_job_that_needs_more_memory_than_there_is,
    test_poll_answers_as_soon_as_there_is_an_event,
)
from tests.contract.test_site_attach import (
    Counted,
    test_a_resumed_run_goes_on_with_the_job_that_runs,
    test_other_work_of_a_resumed_run_does_not_wait_for_the_old_one,
)
from tests.contract.test_site_lease import test_device_of_somebody_else_is_left_alone
from tests.contract.test_site_queue import (
    test_a_person_waits_for_one_job_at_most,
    test_jobs_of_several_runs_wait_by_priority_then_arrival,
)
from tests.contract.toy_runner import ToyRunner

__all__ = [
    "test_a_person_waits_for_one_job_at_most",
    "test_a_pool_that_closes_ends_what_runs",
    "test_a_resumed_run_goes_on_with_the_job_that_runs",
    "test_a_task_gives_its_result",
    "test_an_error_of_a_task_arrives_unchanged",
    "test_cancel_ends_running_and_queued_jobs_within_three_seconds",
    "test_cancelling_ends_the_processes_of_a_task",
    "test_device_of_no_inventory_is_refused",
    "test_device_of_somebody_else_is_left_alone",
    "test_events_are_kept_until_they_are_acknowledged",
    "test_handshake_names_the_tree_and_python",
    "test_inventory_keeps_every_entry_whatever_its_state",
    "test_job_gives_a_result_with_logits_and_leaves_nothing",
    "test_job_that_needs_more_memory_than_there_is",
    "test_jobs_of_several_runs_wait_by_priority_then_arrival",
    "test_other_work_of_a_resumed_run_does_not_wait_for_the_old_one",
    "test_poll_answers_as_soon_as_there_is_an_event",
]

#: Address of the cluster, and FARM_HOME of the host of its site `far`.
CLUSTER, FAR_HOME = "FARM_TEST_CLUSTER", "FARM_TEST_FAR"
_SITE = "far"
MIB = 1 << 20


def toy_agent(folder: str, kept: str) -> SiteAgent:
    """Make the agent inside its actor, with the store of that host."""
    return SiteAgent(
        farm_home(),
        outboxes=outboxes(farm_home(), kept),
        find_runner=lambda _spec: ToyRunner(Path(folder)),
        discover=lambda _named, _site: [],
    )


@dataclass
class Joined:
    """This process as a driver, with a store of its own."""

    home: Path
    far: ContentStore

    def __post_init__(self) -> None:
        from farm.cluster.ray_stores import RayStores

        self.store = ContentStore(store_root(self.home))
        self.stores = RayStores(self.home)


@pytest.fixture(scope="session")
def joined() -> Iterator[Joined]:
    import ray

    forget_preload()
    start.launch(os.environ[CLUSTER])
    yield Joined(farm_home(), ContentStore(store_root(Path(os.environ[FAR_HOME]))))
    ray.shutdown()


class FarBench(SiteBench):
    """A bench whose agent is an actor on another node: objects travel there and back."""

    def __init__(self, folder: Path, joined: Joined) -> None:
        self._joined = joined
        super().__init__(folder)

    def __post_init__(self) -> None:
        (self.folder / "toy").mkdir()
        self.home, self.store = self._joined.home, self._joined.store
        self.agent = self.new_agent()

    def new_agent(self) -> SiteAgent:
        from farm.cluster.ray_site import RaySite

        home, store = str(self.home), self.store

        class Controlled(RaySite):
            """A site as a run uses it: what jobs need goes there first, what they gave comes."""

            async def submit(self, jobs: Sequence[DeviceJob], boot_id: str = "") -> None:
                await self.ensure([ref for job in jobs for ref in needed_objects(job)], home)
                await super().submit(jobs, boot_id)

            async def poll(
                self, run_id: str, after_seq: int, linger_s: float, boot_id: str = ""
            ) -> Polled:
                polled = await super().poll(run_id, after_seq, linger_s, boot_id)
                ends = [i.event for i in polled.events if isinstance(i.event, JobFinished)]
                for event in ends:
                    logits = [
                        ref.object
                        for launch in (event.result.launches if event.result else ())
                        for _, ref in launch.logits
                    ]
                    assert await self.collect([*event.logs, *logits]) == ()
                    assert all(store.has(ref.sha256) for ref in event.logs)
                return polled

        factory = partial(toy_agent, str(self.folder / "toy"), self.folder.name)
        # A site to its users; the tests of this file ask nothing else of it.
        return cast(SiteAgent, Controlled(_SITE, factory, stores=self._joined.stores))


@pytest.fixture
def bench(tmp_path: Path, joined: Joined) -> FarBench:
    return FarBench(tmp_path, joined)


@pytest.fixture
def counted(bench: FarBench) -> Counted:
    return Counted(bench.folder, bench)


@pytest.fixture
def pool_home(joined: Joined) -> Path:
    return joined.home


@pytest.fixture
def pool(joined: Joined) -> object:
    from farm.cluster.ray_pool import RayPool

    return RayPool(cpus_per_export=1, stores=joined.stores)


# -- objects between the stores of two hosts


def node() -> str:
    import ray

    (found,) = [n["NodeID"] for n in ray.nodes() if n["Alive"] and "site:far" in n["Resources"]]
    return str(found)


def test_an_object_of_several_pieces_comes_whole_and_says_how_far_it_is(joined: Joined) -> None:
    ref = joined.store.put_bytes(os.urandom(70 * MIB + 5), "model.pte")
    seen: list[int] = []

    async def scenario() -> None:
        assert await joined.stores.bring([ref], node(), seen.append) == ()
        assert seen == sorted(seen)
        assert seen[-1] == ref.size_bytes
        assert await joined.stores.bring([ref], node()) == ()
        assert joined.far.verify(ref.sha256, force=True)
        joined.store.remove(ref.sha256)
        assert await joined.stores.bring([ref], joined.stores.HERE, first=node()) == ()

    asyncio.run(scenario())
    assert joined.store.verify(ref.sha256, force=True)


def test_who_asks_for_the_same_object_at_once_gets_it_once(joined: Joined) -> None:
    ref = joined.store.put_bytes(os.urandom(20 * MIB), "model.pte")

    async def scenario() -> None:
        await asyncio.gather(*(joined.stores.bring([ref], node()) for _ in range(3)))

    asyncio.run(scenario())
    assert joined.far.verify(ref.sha256, force=True)
    assert list((joined.far.root / "partial").iterdir()) == []


def test_what_nobody_has_and_what_is_damaged_is_named(joined: Joined) -> None:
    gone = ObjectRef("0" * 64, 3, "model.pte")
    hurt = joined.store.put_bytes(os.urandom(MIB), "weights.ptd")
    path = joined.store.location(hurt.sha256)
    path.chmod(0o644)
    path.write_bytes(os.urandom(MIB))

    async def scenario() -> None:
        for ref in (gone, hurt):
            with pytest.raises(StoreError, match=ref.name):
                await joined.stores.bring([ref], node())

    asyncio.run(scenario())
    assert not joined.far.has(hurt.sha256)
