"""The decisions of a run: export, reference, host run, device run, compare, for every cell.

`RunFlow.handle(stimulus)` returns instructions. Attempts, retries on other devices and the rule
that nothing else works on this host while it is measured are decided here. What an event costs
does not grow with the cells that it is not about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from farm.core.artifact import CanaryProgram
from farm.core.device import Device
from farm.core.errors import FarmError, LeaseError
from farm.core.events import (
    DeviceChanged,
    JobEvent,
    JobFinished,
    JobStarted,
    SiteEvent,
)
from farm.core.flow import outcomes
from farm.core.flow.cells import Cells
from farm.core.flow.cellstate import CellProgress, FlowDefect, State, Step
from farm.core.flow.chain import ArtifactChain
from farm.core.flow.fence import Fence
from farm.core.flow.hosttasks import HostTasks
from farm.core.flow.invariants import violations
from farm.core.flow.placement import Placement
from farm.core.flow.second import first_of, for_longer, is_second, sitting_of
from farm.core.flow.stimuli import (
    AskSecondLook,
    CancelAll,
    DeviceQuarantined,
    FinishCell,
    Instruction,
    Interrupt,
    RetryDue,
    RetryLater,
    SecondLook,
    Started,
    Stimulus,
    SubmitJob,
    TaskEnded,
)
from farm.core.plan import ArtifactId, Catalog, Plan
from farm.core.result import CellResult, Judgement
from farm.core.runtime import BaselineArm
from farm.core.spec import RunSpec
from farm.core.tasks import CanaryTask, CompareTask, ExportTask, HostRunTask, ReferenceTask

#: Attempts of a cell that infrastructure may cost, first one included.
MAX_ATTEMPTS = 3
#: How often, and how long apart, a device that somebody else holds is asked for.
LEASE_TRIES = 60
LEASE_PAUSE_S = 5.0
RETRY_PAUSE_S = 2.0


class RunFlow:
    """The decisions of one run."""

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
    ) -> None:
        self._spec, self._plan = spec, plan
        #: By cell: what is measured again beside the candidate.
        self._baselines = dict(baselines or {})
        self._run_id, self._epoch = run_id, epoch
        self._chains = {target: ArtifactChain(target, spec, catalog) for target in plan.artifacts}
        self.fence = Fence(run_id, epoch)
        self.cells = Cells(plan, finished or {})
        self.tasks = HostTasks()
        self.placement = Placement(plan.devices, plan.cells)
        self.roster = self.placement.roster
        self._canary: CanaryProgram | None = None
        self._canary_asked = self.interrupted = False
        #: Whether cells that the first look leaves open can be measured again, and were chosen.
        self._second_asked = self._second_chosen = not self._baselines
        for cell in plan.cells:
            if cell.cell_id in self.results:
                self.placement.keep_device(cell, self.results[cell.cell_id])

    @property
    def results(self) -> dict[str, CellResult]:
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
                one = self.cells[stimulus.job_id]
                if one.state is State.SUBMITTED:
                    one.started_at = one.started_at or stimulus.at
            case JobFinished():
                out += self._job_finished(stimulus)
            case DeviceChanged() if stimulus.device.name in self.roster:
                self.roster.changed(stimulus.device)
                out += self._device_changed(stimulus.device.name)
            case DeviceQuarantined() if stimulus.device in self.roster:
                self.roster.quarantined(stimulus.device, stimulus.reason)
                out += self._device_changed(stimulus.device)
            case RetryDue():
                one = self.cells[stimulus.cell_id]
                if one.state in (State.PAUSED, State.HELD):
                    out += self._queue(one, "the pause is over")
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
        self._begin(self.cells.open)
        self.placement.offer_all()
        return out

    def _begin(self, cells: Iterable[CellProgress]) -> None:
        """Ask for what cells need that isn't there: their artifacts, and the canary."""
        checked = self._spec.correctness.canary and not self._canary_asked
        for one in cells:
            target = one.cell.artifact
            chain = self._chains[target]
            if not chain.is_ready:
                self.tasks.add(chain.first_task(), target)
            if checked and chain.checks_kernels(one.cell.runner) and not self._canary_asked:
                self.tasks.add(CanaryTask("canary:kernels", self._spec.export), "canary")
                self._canary_asked = self.placement.awaits_canary = True

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
        return [i for one in ready for i in self._queue(one, "export and reference are there")]

    def _interrupt(self) -> list[Instruction]:
        if self.interrupted:
            return []
        self.interrupted = True
        self.tasks.drop_waiting()
        reason = "the run was interrupted before this cell ended"
        return [CancelAll(), *(self._skip(one, "interrupted", reason) for one in self.cells.open)]

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
            if isinstance(result, Judgement):
                attempts = tuple(one.attempts)
                judged = outcomes.judged(one.cell, self._device(one), task, result, attempts)
                return [self.cells.finish(one, judged)]
            return [self._errored(one, ended.error or _no_result(task.task_id), "compare_failed")]
        assert isinstance(owner, ArtifactId)
        return self._artifact_task_ended(task, owner, TaskEnded(task.task_id, result, ended.error))

    def _artifact_task_ended(
        self, task: ExportTask | ReferenceTask | HostRunTask, target: ArtifactId, ended: TaskEnded
    ) -> list[Instruction]:
        chain = self._chains[target]
        try:
            following = chain.ended(task, ended.result, ended.error)
        except FarmError as error:
            flag = "export_failed" if isinstance(task, ExportTask) else "reference_failed"
            return [self._errored(one, error, flag) for one in self.cells.open_of(target)]
        out: list[Instruction] = []
        match task:
            case ExportTask():
                out += self._skip_without_runtime(target)
                if self.cells.open_of(target):
                    for next_task in following:
                        self.tasks.add(next_task, target)
            case ReferenceTask():
                for one in self.cells.open_of(target):
                    host_task = chain.host_task(one.cell.runner)
                    if host_task is not None:
                        self.tasks.add(host_task, target)
                    out += self._queue(one, "export and reference are there")
            case HostRunTask():
                for one in self.cells.open_of(target):
                    # There is one host run for each build of farm's runner.
                    ended_for = chain.host_ended(one.cell.runner)
                    if one.state is State.WAITING_HOST and ended_for:
                        self._compare(one, "the host run ended")
        return out

    def _skip_without_runtime(self, target: ArtifactId) -> list[Instruction]:
        """End cells whose runner has no backend for the artifact: it was lowered, and can't run."""
        chain = self._chains[target]
        why = [(one, chain.no_runtime(one.cell.runner)) for one in self.cells.open_of(target)]
        return [self._skip(one, "no_runtime", reason) for one, reason in why if reason]

    def _compare(self, one: CellProgress, why: str) -> None:
        """Have a cell judged, or let it wait for the host's logits."""
        assert one.run is not None, "called when the device run ended"
        chain = self._chains[one.cell.artifact]
        if not chain.host_ended(one.cell.runner):
            self.cells.move(one, State.WAITING_HOST, why)
            return
        self.cells.move(one, State.COMPARING, why)
        task = chain.compare_task(one.cell, self._device(one), one.run, self._canary)
        self.tasks.add(task, one.cell.cell_id)

    # -- devices and their jobs

    def _device_changed(self, name: str) -> list[Instruction]:
        """A device came back, got free or went away; cells that nothing is left for end."""
        self.placement.offer(name)
        return self._place(self.placement.left_without(name))

    def _queue(self, one: CellProgress, why: str) -> list[Instruction]:
        self.cells.move(one, State.QUEUED, why)
        return self._place([one.cell.cell_id])

    def _place(self, cell_ids: Iterable[str]) -> list[Instruction]:
        """Let queued cells wait for a device; those that none is left for end at once."""
        out: list[Instruction] = []
        for one in map(self.cells.__getitem__, cell_ids):
            if not self.placement.place(one):
                taken = self.placement.matcher.taken(one.cell.group)
                out.append(self._errored(one, *self.roster.why_gone(one.cell, taken)))
        return out

    def _job_finished(self, event: JobFinished) -> list[Instruction]:
        error = event.error
        if error is None and event.result is None:
            error = _no_result(event.job_id)
        self.roster.ended(event.device, error)
        one = self.cells[event.job_id]
        if one.state is State.DONE:  # interrupted meanwhile
            self.placement.offer(event.device)
            return []
        out: list[Instruction] = []
        if isinstance(error, LeaseError):
            out += self._held(one, error)
        else:
            one.attempts.append(outcomes.attempt(event, one.started_at, error))
            if error is None:
                one.run = event.result
                self._compare(one, "measured")
            else:
                out += self._attempt_failed(one, error)
        return out + self._device_changed(event.device)

    def _held(self, one: CellProgress, error: LeaseError) -> list[Instruction]:
        """Ask again later: waiting for somebody else is no failed attempt of ours."""
        one.lease_tries += 1
        if one.lease_tries >= LEASE_TRIES:
            return [self._errored(one, error, "device_held")]
        return [self._later(one, State.HELD, error, LEASE_PAUSE_S)]

    def _attempt_failed(self, one: CellProgress, error: FarmError) -> list[Instruction]:
        if not error.retryable or len(one.attempts) >= MAX_ATTEMPTS:
            return [self._errored(one, error, outcomes.failure_flag(error))]
        assert one.device is not None, "a cell with attempts had a device"
        one.avoid |= {one.device}
        return [self._later(one, State.PAUSED, error, RETRY_PAUSE_S * len(one.attempts))]

    def _later(
        self, one: CellProgress, state: State, error: FarmError, delay_s: float
    ) -> Instruction:
        """Give the device back and try again after a pause."""
        self.cells.move(one, state, error.message)
        self.placement.give_back(one)
        return RetryLater(one.cell.cell_id, delay_s)

    def _schedule(self) -> list[Instruction]:
        """Start what may start now. Host tasks go first; a measured host is left alone."""
        out: list[Instruction] = []
        if not self.roster.host_is_measured:
            out += self.tasks.start()
        self.placement.host_tasks_run(bool(self.tasks.running))
        while pairs := self.placement.matcher.assign():
            given = [(self.cells[cell_id], name) for cell_id, name in pairs]
            out += [self._submit(one, name) for one, name in given]
            crowded_out = self.placement.crowded_out(one.cell.group for one, _ in given)
            out += self._place(crowded_out)
        return out

    def _submit(self, one: CellProgress, name: str) -> Instruction:
        one.device, one.started_at = name, None
        one.submissions += 1
        job = self._chains[one.cell.artifact].job(
            one.cell,
            name,
            attempt=one.submissions,
            run_id=self._run_id,
            epoch=self._epoch,
            baseline=self._baselines.get(first_of(one.cell.cell_id)),
            canary=self._canary,
        )
        if is_second(one.cell.cell_id):
            job = for_longer(job)
        self.cells.move(one, State.SUBMITTED, f"attempt {one.submissions} on {name}")
        self.roster.began(name, job.attempt_id)
        return SubmitJob(job, self.roster[name].entry.site)

    # -- results

    def _device(self, one: CellProgress) -> Device:
        return self.roster[one.device] if one.device else self.roster.of(one.cell)

    def _errored(self, one: CellProgress, error: FarmError, flag: str) -> FinishCell:
        return self._end(one, outcomes.errored, error, flag)

    def _skip(self, one: CellProgress, flag: str, reason: str) -> FinishCell:
        return self._end(one, outcomes.skipped, flag, reason)

    def _end(self, one: CellProgress, make: Callable[..., CellResult], *why: object) -> FinishCell:
        """End a cell that is not judged."""
        export, attempts = self._chains[one.cell.artifact].export, tuple(one.attempts)
        result = make(one.cell, self._device(one), *why, attempts=attempts, export=export)
        self.placement.matcher.remove(one.cell.cell_id)
        return self.cells.finish(one, result)


def _no_result(name: str) -> FarmError:
    return FarmError(f"{name}: ended with neither a result of its kind nor an error")
