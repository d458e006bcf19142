"""The state of a run: export, reference, host run, device run, compare, for every cell.

`RunFlow.handle(stimulus)` returns instructions. Attempts, retries on other devices and the rule
that nothing else works on this host while it is measured are decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from farm.core.artifact import CanaryProgram, ExportResult
from farm.core.device import Device
from farm.core.errors import FarmError, LeaseError, TransportError
from farm.core.events import DeviceChanged, JobFinished, JobStarted
from farm.core.flow import outcomes
from farm.core.flow.cellstate import CellState
from farm.core.flow.chain import ArtifactChain
from farm.core.flow.matcher import Matcher
from farm.core.flow.roster import Roster
from farm.core.flow.stimuli import (
    CancelAll,
    DeviceQuarantined,
    FinishCell,
    Instruction,
    Interrupt,
    RetryDue,
    RetryLater,
    Started,
    StartTask,
    Stimulus,
    SubmitJob,
    TaskEnded,
)
from farm.core.plan import ArtifactId, Catalog, Plan
from farm.core.result import AttemptReport, CellResult, Judgement
from farm.core.runtime import BaselineArm
from farm.core.spec import RunSpec
from farm.core.tasks import (
    CanaryTask,
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    ReferenceTask,
)

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
        self._devices = Roster(plan.devices)
        self._runners = catalog.runners
        self._chains = {target: ArtifactChain(target, spec, catalog) for target in plan.artifacts}
        self._cells = {cell.cell_id: CellState(cell) for cell in plan.cells}
        self._tasks: dict[str, HostTask] = {}
        self._held_back: list[HostTask] = []
        self._task_target: dict[str, ArtifactId | str] = {}
        self._matcher = Matcher()
        #: Jobs that measure this very host: no host task runs beside them.
        self._on_host: set[str] = set()
        self._canary: CanaryProgram | None = None
        self._awaits_canary = False  # no device begins before it is made, or can't be
        self._interrupted = False
        self.results: dict[str, CellResult] = dict(finished or {})
        for cell_id in self.results:
            if cell_id in self._cells:
                self._cells[cell_id].done = True

    @property
    def finished(self) -> bool:
        """True when every planned cell has its result."""
        return all(state.done for state in self._cells.values())

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices of the plan as they are now."""
        return self._devices.all

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        """Take in one event and return what is to be done, in order."""
        out: list[Instruction] = []
        match stimulus:
            case Started():
                out += self._start()
            case TaskEnded():
                out += self._task_ended(stimulus)
            case JobStarted():
                state = self._cells.get(stimulus.job_id)
                if state is not None:
                    state.started_at = stimulus.at
            case JobFinished():
                out += self._job_finished(stimulus)
            case DeviceChanged():
                out += self._device_changed(stimulus.device)
            case DeviceQuarantined():
                self._devices.quarantined(stimulus.device, stimulus.reason)
                out += self._device_changed(self._devices[stimulus.device])
            case RetryDue():
                state = self._cells[stimulus.cell_id]
                if not state.done:
                    out += self._queue(state)
            case Interrupt():
                out += self._interrupt()
        return out + self._schedule()

    def _start(self) -> list[Instruction]:
        out: list[Instruction] = []
        for skip in self._plan.skips:
            if skip.cell.cell_id not in self.results:
                result = outcomes.skipped(
                    skip.cell, self._devices.of(skip.cell), skip.flag, skip.reason
                )
                out.append(self._record(result))
        used = {device for cell in self._plan.cells for device in cell.devices}
        for device in used:
            self._free(device)
        for target in dict.fromkeys(state.cell.artifact for state in self._open_cells()):
            self._task(self._chains[target].first_task(), target)
        if self._spec.correctness.canary and any(
            self._chains[state.cell.artifact].checks_kernels(state.cell.runner)
            for state in self._open_cells()
        ):
            self._awaits_canary = True
            self._task(CanaryTask("canary:kernels", self._spec.export), "canary")
        return out

    def _interrupt(self) -> list[Instruction]:
        if self._interrupted:
            return []
        self._interrupted = True
        self._held_back.clear()
        out: list[Instruction] = [CancelAll()]
        for state in self._open_cells():
            out.append(
                self._finish(
                    state,
                    outcomes.skipped(
                        state.cell,
                        self._device(state),
                        "interrupted",
                        "the run was interrupted before this cell ended",
                        attempts=tuple(state.attempts),
                        export=self._export(state),
                    ),
                )
            )
        return out

    def _task(self, task: HostTask, target: ArtifactId | str) -> None:
        self._task_target[task.task_id] = target
        self._held_back.append(task)

    def _task_ended(self, ended: TaskEnded) -> list[Instruction]:
        task = self._tasks.pop(ended.task_id, None)
        if task is None or self._interrupted:
            return []
        target = self._task_target[ended.task_id]
        if isinstance(task, CompareTask):
            state = self._cells[str(target)]
            if isinstance(ended.result, Judgement):
                result = outcomes.judged(
                    state.cell, self._device(state), task, ended.result, tuple(state.attempts)
                )
                return [self._finish(state, result)]
            return [self._errored(state, ended.error, "compare_failed")]
        if isinstance(task, CanaryTask):
            # Without it cells run as well, and say that nothing checked their kernels.
            self._awaits_canary = False
            self._canary = ended.result if isinstance(ended.result, CanaryProgram) else None
            return []
        assert isinstance(target, ArtifactId)
        try:
            following = self._chains[target].ended(task, ended.result, ended.error)
        except FarmError as error:
            flag = "export_failed" if isinstance(task, ExportTask) else "reference_failed"
            return [
                self._errored(state, error, flag)
                for state in self._open_cells()
                if state.cell.artifact == target
            ]
        out: list[Instruction] = []
        if isinstance(task, ExportTask):
            out += self._skip_without_runtime(target)
            if not any(state.cell.artifact == target for state in self._open_cells()):
                return out
        for next_task in following:
            self._task(next_task, target)
        if isinstance(task, ReferenceTask):
            return self._begin_runs(target)
        elif isinstance(task, HostRunTask):
            self._compare_ready(target)
        return out

    def _skip_without_runtime(self, target: ArtifactId) -> list[Instruction]:
        """End cells whose runner has no backend for the artifact: it was lowered, and can't run."""
        export = self._chains[target].export
        assert export is not None, "called when the export ended"
        backend, out = export.bundle.backend, list[Instruction]()
        for state in self._open_cells():
            known = self._runners[state.cell.runner].backends
            if state.cell.artifact != target or not known or backend in known:
                continue
            reason = (
                f"exported, not run: runner {state.cell.runner} has no {backend} runtime (it has"
                f" {', '.join(sorted(known))})"
            )
            device = self._device(state)
            result = outcomes.skipped(state.cell, device, "no_runtime", reason, export=export)
            out.append(self._finish(state, result))
        return out

    def _begin_runs(self, target: ArtifactId) -> list[Instruction]:
        out: list[Instruction] = []
        for state in self._open_cells():
            if state.cell.artifact != target:
                continue
            out += self._queue(state)
            host_task = self._chains[target].host_task(state.cell.runner)
            if host_task is not None:
                self._task(host_task, target)
        return out

    def _compare_ready(self, target: ArtifactId) -> None:
        for state in self._open_cells():
            if state.cell.artifact == target and state.run is not None:
                self._compare(state)

    def _compare(self, state: CellState) -> None:
        chain = self._chains[state.cell.artifact]
        waits = not chain.host_ended(state.cell.runner)
        if waits or state.comparing or state.run is None:
            return
        state.comparing = True
        task = chain.compare_task(state.cell, self._device(state), state.run, self._canary)
        self._task(task, state.cell.cell_id)

    def _free(self, name: str) -> None:
        """Let a device take the next job, if it can."""
        if self._devices.is_free(name):
            self._matcher.idle(name)

    def _device_changed(self, device: Device) -> list[Instruction]:
        """Take in that a device came back or went away; cells that nothing is left for end."""
        if device.name not in self._devices:
            return []
        self._devices.changed(device)
        self._matcher.busy(device.name)
        self._free(device.name)
        return self._drop_unschedulable()

    def _queue(self, state: CellState) -> list[Instruction]:
        choices = self._devices.choices(state.cell, state.avoid)
        if choices:
            self._matcher.add(state.cell.cell_id, choices)
            return []
        return [self._gone(state)]

    def _job_finished(self, event: JobFinished) -> list[Instruction]:
        self._on_host.discard(event.job_id)
        self._devices.ended(event.device)
        state = self._cells.get(event.job_id)
        if state is None or state.done:
            return []
        state.attempts.append(
            AttemptReport(
                n=event.attempt,
                device=event.device,
                started_at=state.started_at,
                ended_at=event.at,
                outcome="ran" if event.error is None else "errored",
                error=None if event.error is None else outcomes.error_report(event.error),
            )
        )
        if event.error is None:
            self._free(event.device)
            state.run = event.result
            self._compare(state)
            return []
        return self._attempt_failed(state, event.device, event.error)

    def _attempt_failed(self, state: CellState, device: str, error: FarmError) -> list[Instruction]:
        if isinstance(error, LeaseError):
            self._free(device)
            state.attempts.pop()  # waiting for somebody else is no failed attempt of ours
            state.lease_tries += 1
            if state.lease_tries < LEASE_TRIES:
                return [RetryLater(state.cell.cell_id, LEASE_PAUSE_S)]
            return [self._errored(state, error, "device_held")]
        spent = len(state.attempts) >= MAX_ATTEMPTS
        if isinstance(error, TransportError) and spent:
            self._devices.given_up(device)
            self._matcher.busy(device)
        else:
            self._free(device)
        if not error.retryable or spent:
            return [self._errored(state, error, "device_failed"), *self._drop_unschedulable()]
        state.avoid |= {device}
        return [RetryLater(state.cell.cell_id, RETRY_PAUSE_S * len(state.attempts))]

    def _drop_unschedulable(self) -> list[Instruction]:
        lost = self._matcher.unschedulable(self._devices.alive)
        return [self._gone(self._cells[job_id]) for job_id in lost]

    def _gone(self, state: CellState) -> Instruction:
        """End a cell none of whose devices is left."""
        error, flag = self._devices.why_gone(state.cell)
        return self._errored(state, error, flag)

    def _schedule(self) -> list[Instruction]:
        """Start what may start now. Host tasks go first; a measured host is left alone."""
        out: list[Instruction] = []
        if not self._on_host:
            for task in self._held_back:
                self._tasks[task.task_id] = task
                out.append(StartTask(task))
            self._held_back.clear()
        quiet = not self._tasks
        allowed = frozenset(
            device.name
            for device in self._devices.all
            if not self._awaits_canary and (quiet or not _is_host(device))
        )
        for cell_id, name in self._matcher.assign(allowed):
            state = self._cells[cell_id]
            state.device = name
            self._devices.began(name)
            if _is_host(self._devices[name]):
                self._on_host.add(cell_id)
            job = self._chains[state.cell.artifact].job(
                state.cell,
                name,
                attempt=len(state.attempts) + 1,
                run_id=self._run_id,
                epoch=self._epoch,
                baseline=self._baselines.get(cell_id),
                canary=self._canary,
            )
            out.append(SubmitJob(job, self._devices[name].entry.site))
        return out

    # -- results

    def _open_cells(self) -> Iterable[CellState]:
        return [state for state in self._cells.values() if not state.done]

    def _device(self, state: CellState) -> Device:
        return self._devices[state.device] if state.device else self._devices.of(state.cell)

    def _export(self, state: CellState) -> ExportResult | None:
        chain = self._chains.get(state.cell.artifact)
        return None if chain is None else chain.export

    def _errored(self, state: CellState, error: FarmError | None, flag: str) -> Instruction:
        assert error is not None, "a task ends with a result or an error"
        result = outcomes.errored(
            state.cell,
            self._device(state),
            error,
            flag,
            attempts=tuple(state.attempts),
            export=self._export(state),
        )
        return self._finish(state, result)

    def _finish(self, state: CellState, result: CellResult) -> Instruction:
        state.done = True
        self._matcher.remove(state.cell.cell_id)
        return self._record(result)

    def _record(self, result: CellResult) -> Instruction:
        self.results[result.cell_id] = result
        return FinishCell(result)


def _is_host(device: Device) -> bool:
    """Whether measuring this device measures the host that tasks run on."""
    return device.entry.transport == "local"
