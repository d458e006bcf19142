"""Runs of the simulation: farm's own composition of a run, killed and gone on with."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from farm.clock import utc_now
from farm.cluster.start import Runtime
from farm.core.errors import FarmError
from farm.core.plan import make_plan
from farm.core.result import Report
from farm.core.spec import Limits, RunSpec
from farm.core.tasks import (
    CanaryTask,
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    PoolHosts,
    ReferenceTask,
    TokensTask,
)
from farm.planning.planning import Prepared, RunOptions
from farm.protocols import StageCallback
from farm.run import run as composition
from farm.run.opening import Opened, open_new, open_resumed, saved_of
from farm.run.saved_plan import look_again
from tests.sim.devices import Truth
from tests.sim.hosts import SimHost
from tests.sim.network import Network, Wire
from tests.sim.stage import Stage
from tests.sim.world import Process, Violation
from tests.unit.core import builders as b

log = logging.getLogger(__name__)

#: Nothing here takes so long: a job that reaches it was lost by farm.
LIMITS = Limits(job_s=1800.0, run_s=20 * 3600.0)
_SECONDS = {
    ExportTask: (10.0, 60.0), ReferenceTask: (2.0, 20.0), HostRunTask: (2.0, 10.0),
    CompareTask: (0.2, 2.0), CanaryTask: (1.0, 5.0),
    TokensTask: (0.2, 2.0),
}  # fmt: skip


class SimPool:
    """Hosts that do host tasks; a task whose host goes down starts once more elsewhere.

    Args:
        stage: Where it stands.
        process: The controller.
        truth: What devices did, by the number in their results.
    """

    def __init__(self, stage: Stage, process: Process, truth: list[Truth]) -> None:
        self._stage, self._process, self._truth = stage, process, truth

    def hosts(self) -> PoolHosts:
        return PoolHosts()

    async def run(
        self, task: HostTask, on_stage: StageCallback, but: frozenset[str] = frozenset()
    ) -> HostTaskResult:
        chance = self._stage.world.chance
        while True:
            host = chance.choice(list(self._stage.hosts.values()))
            deaths = host.deaths
            await asyncio.sleep(chance.uniform(*_SECONDS[type(task)]))
            self._process.check()
            if host.deaths == deaths:
                return self._result(task)

    def _result(self, task: HostTask) -> HostTaskResult:
        match task:
            case ExportTask(request=request):
                return b.export_result(request.recipe.name)
            case TokensTask():
                return b.tokenized()
            case ReferenceTask():
                return b.reference_result()
            case HostRunTask():
                return b.host_result()
            case CanaryTask():
                return b.canary_program()
            case CompareTask(run=run):
                good = self._truth[run.deployed.pushed_bytes - 1].good
                return b.judgement("passed" if good else "failed")

    async def close(self) -> None:
        return None


@dataclass(eq=False)
class SimRun:
    """One run: a night of a matrix, in as many processes as it takes."""

    name: str
    spec: RunSpec
    stage: Stage
    network: Network
    home: Path
    truth: list[Truth]
    #: Cells that are planned.
    planned: frozenset[str] = frozenset()
    process: Process | None = None
    #: Report of each process that came to an end, by its number.
    reports: dict[int, Report] = field(default_factory=dict)
    #: What kept a process from going on.
    refused: list[FarmError] = field(default_factory=list)
    tries: int = 0
    _folders: int = 0

    @property
    def hosts(self) -> dict[str, SimHost]:
        """Hosts by the name of their site."""
        return {host.name: host for host in self.stage.hosts.values()}

    @property
    def folder(self) -> Path:
        """The run's folder, of its latest beginning."""
        return self.home / "runs" / f"{self.name}-{self._folders}"

    def start(self) -> None:
        """Begin with the run, or go on with it, in a new process."""
        self.tries += 1
        self.process = Process(self.stage.world, f"{self.name}/{self.tries}")
        self.stage.world.note(f"{self.process.name} starts")
        self.process.start(self._drive(self.process))

    @property
    def ended(self) -> bool:
        """Whether its process is over, however it ended."""
        return self.process is not None and self.process.dead

    @property
    def report(self) -> Report:
        """The last one."""
        return self.reports[max(self.reports)]

    @property
    def is_complete(self) -> bool:
        """Whether nobody has to go on with it: it was not killed, halted or interrupted."""
        report = self.reports.get(self.tries)
        if report is None:
            return False
        flags = {flag for result in report.results for flag in result.flags}
        if "defect" in flags or any("farm itself failed" in alarm for alarm in report.alarms):
            raise Violation(f"farm itself failed: {report.alarms}")
        early = {"interrupted", "not_recorded", "run_limit", "not_ended"}
        return not flags & early and not any("ended early" in alarm for alarm in report.alarms)

    async def _drive(self, process: Process) -> None:
        wires = {name: Wire(self.network, process, host) for name, host in self.hosts.items()}
        runtime = Runtime(SimPool(self.stage, process, self.truth), wires, lambda: None)
        try:
            await self._run(runtime)
        except FarmError as error:
            self.stage.world.note(f"{process.name} is refused: {error}")
            self.refused.append(error)
        process.end()

    async def _run(self, runtime: Runtime) -> None:
        opened, prepared = await self._opened(runtime)
        with contextlib.closing(opened.journal):
            done = await composition._run(
                opened, prepared, runtime, None, self.home, lambda event: None
            )
        self.stage.world.note(f"{self.name}: {done.report.verdict_line}")
        self.reports[self.tries] = done.report

    async def _opened(self, runtime: Runtime) -> tuple[Opened, Prepared]:
        options = RunOptions(None, out=self.home / "runs")
        if self._began:
            opened = open_resumed(self.folder, options)
            try:
                saved = saved_of(opened.journal, self.folder)
                return opened, await look_again(saved, runtime.sites, self.home)
            except BaseException:
                opened.journal.close()
                raise
        entries = [d.look().entry for host in self.hosts.values() for d in host.devices.values()]
        devices = []
        for name, site in runtime.sites.items():
            mine = [entry for entry in entries if entry.site == name]
            devices += await site.inventory(mine, adb_auto=False)
        catalog = b.catalog(self.spec)
        plan = make_plan(self.spec, devices, catalog)
        self._folders += 1
        named = replace(self.spec, name=self.folder.name)
        prepared = Prepared(named, {}, catalog, plan)
        opened = open_new(options, prepared, "", utc_now())
        cells = [*plan.cells, *(skip.cell for skip in plan.skips)]
        self.planned = frozenset(cell.cell_id for cell in cells)
        return opened, prepared

    @property
    def _began(self) -> bool:
        """Whether there is something to go on with: a run that was killed before its plan isn't."""
        return bool(self.planned)
