"""The decisions of a run: export, reference, host run, device run, compare, for every cell.

`RunFlow.handle(stimulus)` returns instructions. Here is what a host does for the cells; what
becomes of them on devices is farm.core.flow.jobs. What an event costs does not grow with the cells
that it is not about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from farm.core.artifact import CanaryProgram
from farm.core.device import Device
from farm.core.errors import FarmError
from farm.core.events import DeviceChanged, JobEvent, JobFinished, JobStarted, SiteEvent
from farm.core.flow import outcomes
from farm.core.flow.cells import Cells
from farm.core.flow.cellstate import CellProgress, FlowDefect, State, Step
from farm.core.flow.chain import ArtifactChain
from farm.core.flow.ends import Ends, finished
from farm.core.flow.fence import Fence
from farm.core.flow.hosttasks import HostTasks
from farm.core.flow.invariants import violations
from farm.core.flow.jobs import Jobs, no_result
from farm.core.flow.lengths import Lengths
from farm.core.flow.placement import Placement
from farm.core.flow.results import Results
from farm.core.flow.roster import Roster
from farm.core.flow.second import first_of, for_longer, is_second, sitting_of
from farm.core.flow.stimuli import (
    AskSecondLook,
    CancelAll,
    CancelCell,
    DeviceQuarantined,
    Instruction,
    Interrupt,
    RetryDue,
    SecondLook,
    Started,
    Stimulus,
    TaskEnded,
)
from farm.core.judgement import Judgement
from farm.core.plan import ArtifactId, Catalog, Plan
from farm.core.result import CellResult
from farm.core.runtime import BaselineArm, DeviceJob
from farm.core.spec import RunSpec
from farm.core.tasks import (
    CanaryTask,
    CompareTask,
    ExportTask,
    HostRunTask,
    PoolHosts,
    ReferenceTask,
    TokensTask,
)

#: Why cells are queued.
_READY = "its program and token ids are there"


class RunFlow:
    """The decisions of one run.

    Args:
        spec: The config.
        plan: The cells.
        catalog: What names in the plan mean.
        run_id: The run.
        epoch: Which part of it.
        finished: Results of earlier epochs, by cell.
        baselines: By cell, what is measured again beside the candidate.
        past: Seconds that work took in earlier runs: see farm.core.flow.lengths.
        hosts: Where host tasks may run.
    """

    def __init__(
        self,
        spec: RunSpec,
        plan: Plan,
        catalog: Catalog,
        *,
        run_id: str,
        epoch: int = 1,
        finished: Mapping[str, CellResult] | None = None,
        baselines: Mapping[str, BaselineArm] | None = None,
        past: Mapping[str, float] | None = None,
        hosts: PoolHosts | None = None,
    ) -> None:
        self._spec, self._plan = spec, plan
        self._baselines = dict(baselines or {})
        self._run_id, self._epoch = run_id, epoch
        features = plan.cpu_features()
        self._chains = {
            target: ArtifactChain(target, spec, catalog, features) for target in plan.artifacts
        }
        self.fence = Fence(run_id, epoch)
        self.cells = Cells(plan, finished or {})
        hosts = hosts or PoolHosts()
        self.roster = Roster(plan.devices, hosts)
        pools = dict.fromkeys(cell.devices for cell in plan.cells)
        used = dict.fromkeys(name for pool in pools for name in pool)
        known = self.roster.hosts
        self.tasks = HostTasks(hosts, (known[name] for name in used if name in known))
        self._lengths = Lengths(past or {}, spec.workload.budget_s)
        self.placement = Placement(self.roster, used, self.tasks, self._lengths)
        self.ends = Ends(self.cells, self.placement, self._chains)
        self.jobs = Jobs(
            self.cells, self.placement, self.ends, make=self._job, compare=self._compare,
            hold_limit_s=spec.limits.job_s,
        )  # fmt: skip
        self._canary: CanaryProgram | None = None
        self._canary_asked = self.interrupted = False
        #: Whether cells that the first look leaves open can be measured again, and were chosen.
        self._second_asked = self._second_chosen = not self._baselines
        for cell in plan.cells:
            if cell.group and cell.cell_id in self.results:
                self.placement.keep_device(cell, self.results[cell.cell_id])

    @property
    def results(self) -> Results:
        """The results so far, by cell."""
        return self.cells.results

    @property
    def finished(self) -> bool:
        """True when every planned cell has its result, and every second sitting."""
        return not self.cells.open_count and (self._second_chosen or self.interrupted)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices of the plan as they are now."""
        return self.roster.all

    @property
    def dropped(self) -> dict[str, int]:
        """Job events that were not of this run's current attempts, counted by reason."""
        return dict(self.fence.dropped)

    def story(self, cell_id: str) -> tuple[Step, ...]:
        """Every transition of a cell so far, with the number of the stimulus that caused it."""
        return tuple(self.cells[cell_id].story)

    def validate(self) -> None:
        """Check what must hold between two stimuli. Looks at everything; for tests.

        Raises:
            FlowDefect: Something does not hold; names all of it.
        """
        if found := violations(self):
            raise FlowDefect("; ".join(found))

    def drops(self, event: SiteEvent) -> bool:
        """Tell whether an event is none of a current attempt of this run, and count it then."""
        if not isinstance(event, JobEvent):
            return False
        running = self.roster.at_work.get(event.device)
        return self.fence.drops(event, known=event.job_id in self.cells, running=running)

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        """Take in one event and return what is to be done, in order."""
        self.cells.stimulus += 1
        out: list[Instruction] = []
        match stimulus:
            case Started():
                out += self._start()
            case TaskEnded():
                out += self._task_ended(stimulus)
            case JobStarted() | JobFinished() if self.drops(stimulus):
                pass
            case JobStarted():
                self.jobs.started(stimulus)
            case JobFinished():
                out += self.jobs.ended(stimulus)
            case DeviceChanged() if stimulus.device.name in self.roster:
                self.roster.changed(stimulus.device)
                out += self.jobs.device_changed(stimulus.device.name)
            case DeviceQuarantined() if stimulus.device in self.roster:
                self.roster.quarantined(stimulus.device, stimulus.reason)
                out += self.jobs.device_changed(stimulus.device)
            case RetryDue():
                out += self.jobs.again(self.cells[stimulus.cell_id])
            case CancelCell() if stimulus.cell_id in self.cells:
                out += self._cancel(self.cells[stimulus.cell_id], stimulus.by)
            case SecondLook():
                out += self._second_look(stimulus)
            case Interrupt():
                out += self._interrupt()
        out += self._schedule()
        if not (self.cells.open_count or self._second_asked or self.interrupted):
            self._second_asked = True
            out.append(AskSecondLook())
        return out

    def _start(self) -> list[Instruction]:
        out: list[Instruction] = []
        for skip in self._plan.skips:
            if skip.cell.cell_id not in self.results:
                device = self.roster.of(skip.cell)
                result = outcomes.skipped(skip.cell, device, skip.flag, skip.reason)
                out.append(self.cells.record(result))
        for name in self.placement.used:
            if not self.roster.is_alive(name):  # gone since the run began, in a resumed one
                out += self.jobs.device_changed(name)
        self._begin(self.cells.open)
        self.placement.offer_all()
        return out

    def _begin(self, opened: Iterable[CellProgress]) -> None:
        """Ask for what cells need that isn't there: the canary, and their artifacts."""
        cells = [one.cell for one in opened]
        checked = self._spec.correctness.canary and not self._canary_asked
        if checked and any(self._chains[c.artifact].checks_kernels(c.runner) for c in cells):
            # First: no device begins without it.
            self.tasks.add(CanaryTask("canary:kernels", self._spec.export), "canary")
            self._canary_asked = self.placement.awaits_canary = True
        for target in self._lengths.export_order(cells):
            if not self._chains[target].is_ready:
                self.tasks.add(self._chains[target].first_task(), target)

    def _second_look(self, chosen: SecondLook) -> list[Instruction]:
        """Open the second sittings that were chosen and have no result of an earlier epoch."""
        self._second_chosen = True
        if self.interrupted:
            return []
        cells = (
            sitting_of(self.cells[cell_id].cell, self.results[cell_id].device.name)
            for cell_id in chosen.cell_ids
        )
        opened = [self.cells.add(cell) for cell in cells if cell.cell_id not in self.results]
        self._begin(opened)
        self.placement.offer_all()
        ready = [one for one in opened if self._chains[one.cell.artifact].is_ready]
        return [item for one in ready for item in self.jobs.queue(one, _READY)]

    def _interrupt(self) -> list[Instruction]:
        if self.interrupted:
            return []
        self.interrupted = True
        self.tasks.drop_waiting()
        reason = "the run was interrupted before this cell ended"
        ended = [
            i for one in self.cells.open for i in self.ends.skipped(one, "interrupted", reason)
        ]
        return [CancelAll(), *finished(ended)]

    def _cancel(self, one: CellProgress, by: str) -> list[Instruction]:
        """End one cell, and leave out what would be done for it alone and has not begun."""
        if one.state is State.DONE:
            return []
        out = self.ends.skipped(one, "cancelled", f"cancelled by {by}")
        self.tasks.drop(f"compare:{one.cell.cell_id}")
        if not self.cells.open_of(one.cell.artifact):
            self.tasks.drop(self._chains[one.cell.artifact].first_task().task_id)
        return out

    # -- host tasks

    def _task_ended(self, ended: TaskEnded) -> list[Instruction]:
        task, owner = self.tasks.ended(ended.task_id) or (None, "")
        if task is None or self.interrupted:
            return []
        # Never both: what ended with an error has no result, whatever came with it.
        result = None if ended.error is not None else ended.result
        if isinstance(task, CanaryTask):
            # Without it cells run as well, and say that nothing checked their kernels.
            self._canary = result if isinstance(result, CanaryProgram) else None
            self.placement.awaits_canary = False
            self.placement.offer_all()
            return []
        if isinstance(task, CompareTask):
            one = self.cells[str(owner)]
            if one.state is State.DONE:  # cancelled meanwhile
                return []
            if isinstance(result, Judgement):
                device = self.ends.device(one)
                judged = outcomes.judged(one.cell, device, task, result, one.attempts)
                return [self.cells.finish(one, judged)]
            error = ended.error or no_result(task.task_id)
            return self.ends.errored(one, error, "compare_failed")
        assert isinstance(owner, ArtifactId)
        return self._artifact_task_ended(task, owner, TaskEnded(task.task_id, result, ended.error))

    def _artifact_task_ended(
        self,
        task: ExportTask | TokensTask | ReferenceTask | HostRunTask,
        target: ArtifactId,
        ended: TaskEnded,
    ) -> list[Instruction]:
        chain, cells = self._chains[target], self.cells.open_of(target)
        try:
            following = chain.ended(task, ended.result, ended.error)
        except FarmError as error:
            flag = "export_failed" if isinstance(task, ExportTask) else "reference_failed"
            return [item for one in cells for item in self.ends.errored(one, error, flag)]
        out: list[Instruction] = []
        match task:
            case ExportTask():
                out += self._skip_without_runtime(target)
                if self.cells.open_of(target):
                    for next_task in following:
                        self.tasks.add(next_task, target)
            case TokensTask():
                for one in cells:
                    host_task = chain.host_task(one.cell.runner)
                    if host_task is not None:
                        self.tasks.add(host_task, target)
                    out += self.jobs.queue(one, _READY)
            case ReferenceTask() | HostRunTask():
                for one in cells:
                    # There is one host run for each build of farm's runner.
                    if one.state is State.WAITING_HOST and chain.can_judge(one.cell.runner):
                        out += self._judge(one, "reference and host run ended")
        return out

    def _skip_without_runtime(self, target: ArtifactId) -> list[Instruction]:
        """End cells whose runner has no backend for the artifact: it was lowered, and can't run."""
        chain = self._chains[target]
        why = [(one, chain.no_runtime(one.cell.runner)) for one in self.cells.open_of(target)]
        found = [self.ends.skipped(one, "no_runtime", reason) for one, reason in why if reason]
        return [item for ended in found for item in ended]

    def _compare(self, one: CellProgress, why: str) -> list[Instruction]:
        """Have a cell judged, or let it wait for what it is judged by."""
        if self._chains[one.cell.artifact].can_judge(one.cell.runner):
            return self._judge(one, why)
        self.cells.move(one, State.WAITING_HOST, why)
        return []

    def _judge(self, one: CellProgress, why: str) -> list[Instruction]:
        assert one.run is not None, "called when the device run ended"
        chain, device = self._chains[one.cell.artifact], self.ends.device(one)
        try:
            task = chain.compare_task(one.cell, device, one.run, self._canary)
        except FarmError as error:
            return self.ends.errored(one, error, "reference_failed")
        self.cells.move(one, State.COMPARING, why)
        self.tasks.add(task, one.cell.cell_id)
        return []

    def _job(self, one: CellProgress, device: str) -> DeviceJob:
        job = self._chains[one.cell.artifact].job(
            one.cell,
            device,
            attempt=one.submissions,
            run_id=self._run_id,
            epoch=self._epoch,
            baseline=self._baselines.get(first_of(one.cell.cell_id)),
            canary=self._canary,
        )
        return for_longer(job) if is_second(one.cell.cell_id) else job

    def _schedule(self) -> list[Instruction]:
        """Start what may start now. Host tasks go first; a measured host is left alone."""
        out: list[Instruction] = [*self.tasks.start(self.roster.measured)]
        self.placement.tasks_changed()
        return out + self.jobs.assign()
