"""Two nights at once on one device: real controllers and agent, export hosts that are played."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from farm.core.artifact import StageEvent
from farm.core.events import JobFinished, JobProgress
from farm.core.flow.flow import RunFlow
from farm.core.plan import make_plan
from farm.core.runner import RunnerSpec
from farm.core.spec import Limits, Matrix, RunSpec, Workload
from farm.core.tasks import HostTask, HostTaskResult, PoolHosts
from farm.core.view import CellDone, ViewEvent
from farm.protocols import StageCallback
from farm.run.controller import Controller
from farm.run.device_health import Care
from farm.run.journal import Journal
from farm.state.health_book import HealthBook
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD
from tests.pace import slack
from tests.unit.core import builders as b
from tests.unit.fakes import FakePool

SLOW = f"sleep 0.3\n{GOOD}"


class Played(FakePool):
    """A pool whose exports are objects of a real store, on a host that no device is."""

    def __init__(self, bench: SiteBench) -> None:
        super().__init__()
        made = b.export_result()
        program = bench.store.put_bytes(SLOW.encode(), "model.pte")
        self._export = replace(made, bundle=replace(made.bundle, pte=program), replay=None)

    def hosts(self) -> PoolHosts:
        return PoolHosts(frozenset({"exports"}), {})

    async def run(
        self, task: HostTask, on_stage: StageCallback, but: frozenset[str] = frozenset()
    ) -> HostTaskResult:
        on_stage(StageEvent("work", 1, 1, 0.0))
        found = await super().run(task, on_stage, but)
        return self._export if task.task_id.startswith("export:") else found


class Night:
    """One run of some cells on the one device."""

    def __init__(self, bench: SiteBench, run_id: str, spec: RunSpec) -> None:
        known = b.catalog(spec)
        (device,) = bench.agent._devices.values()
        self.flow = RunFlow(
            spec, make_plan(spec, [device], known), known, run_id=run_id,
            hosts=PoolHosts(frozenset({"exports"}), {}),
        )  # fmt: skip
        folder = bench.folder / run_id
        folder.mkdir()
        self.journal = Journal(folder / "journal.db")
        self.seen: list[ViewEvent] = []
        self.controller = Controller(
            self.flow, pool=Played(bench), sites={"": bench.agent}, journal=self.journal,
            emit=self.seen.append, on_finished=lambda event: None,
            on_task=lambda task, outcome: None, estimates={}, store_home=str(bench.home),
            care=Care(HealthBook(folder / "quarantine.json"), self.flow.devices),
            alarm=lambda text: None, limits=Limits(),
        )  # fmt: skip


def test_two_nights_on_one_device_take_turns_and_both_end(bench: SiteBench) -> None:
    spec = replace(
        b.run_spec(recipes=("r1", "r2", "r3")),
        matrix=Matrix(recipe=("r1", "r2", "r3"), runner=("toy",)),
        runners=(RunnerSpec("toy"),),
        workload=Workload(prefill=(), decode=(1,), depth=(1 << 20,)),
    )

    async def scenario() -> list[Night]:
        await bench.agent.inventory([bench.local], adb_auto=False)
        nights = [Night(bench, run_id, spec) for run_id in ("one", "two")]
        async with asyncio.timeout(60 * slack()):
            halts = await asyncio.gather(*(night.controller.run() for night in nights))
        assert halts == [None, None]
        await bench.agent.close()
        return nights

    nights = asyncio.run(scenario())
    ends: list[tuple[str, str]] = []
    for night in nights:
        run_id = night.flow.fence.run_id
        assert {result.outcome for result in night.flow.results.values()} == {"passed"}
        assert len([event for event in night.seen if isinstance(event, CellDone)]) == 3
        jobs = [event for event in night.seen if isinstance(event, JobFinished)]
        assert {event.attempt_id.run_id for event in jobs} == {run_id}
        assert all(event.error is None for event in jobs), "waiting is no failure"
        ends += [(event.at, run_id) for event in jobs]
        assert night.flow.dropped == {}
    told = {
        event.detail
        for night in nights
        for event in night.seen
        if isinstance(event, JobProgress) and event.stage == "queue"
    }
    assert told <= {"next; now: run one", "next; now: run two"}
    assert told, "nobody was told of a place in the queue"
    turns = [run_id for _, run_id in sorted(ends)]
    assert set(turns[:3]) == {"one", "two"}, f"one waited for all of the other: {turns}"
