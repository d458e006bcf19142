"""The outside of a flow in a random history: what it asked for, what was answered, what is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from farm.core.errors import (
    DeviceLost,
    FarmError,
    Interrupted,
    LeaseError,
)
from farm.core.events import DeviceChanged, JobEvent, JobFinished
from farm.core.flow.flow import RunFlow
from farm.core.flow.jobs import MAX_ATTEMPTS
from farm.core.flow.second import SUFFIX
from farm.core.flow.stimuli import (
    AskSecondLook,
    CancelJob,
    FinishCell,
    RetryDue,
    RetryLater,
    SecondLook,
    Started,
    StartTask,
    Stimulus,
    SubmitJob,
    TaskEnded,
)
from farm.core.plan import make_plan
from farm.core.result import CellResult
from farm.core.runner import DeployFile, RunnerSpec
from farm.core.runtime import AttemptId, BaselineArm, Deployed, DeviceJob
from farm.core.spec import DeviceRequest, Matrix, RunSpec
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
from tests.unit.core import builders as b

T = TypeVar("T")

RESULTS: dict[type[HostTask], HostTaskResult] = {
    ExportTask: b.export_result(),
    TokensTask: b.tokenized(),
    ReferenceTask: b.reference_result(),
    HostRunTask: b.host_result(),
    CompareTask: b.judgement(),
    CanaryTask: b.canary_program(),
}
RUN = b.run_result()
ARM = BaselineArm("old", (DeployFile(b.ref("old.pte"), "model.pte"),), b.BUILD)
#: Steps that a run may take to its end once everything is answered.
DRAIN_LIMIT = 400


def _specs() -> list[RunSpec]:
    each = b.run_spec(recipes=("r1", "r2"))
    pool = DeviceRequest("transport=adb", any=1, pool="p")
    two = DeviceRequest("transport=adb", any=2, pool="p")
    three = DeviceRequest("", any=3, pool="p")
    mixed = replace(
        b.run_spec(requests=(two, DeviceRequest("name=local")), canary=True),
        matrix=Matrix(recipe=("r1",), runner=("executorch", "text")),
    )
    return [
        each,
        b.run_spec(recipes=("r1", "r2"), requests=(pool,)),
        b.run_spec(recipes=("r1", "r2"), requests=(two,)),
        b.run_spec(requests=(three,)),
        mixed,
        b.run_spec(canary=True),
    ]


def _flow(spec: RunSpec, hosts: PoolHosts) -> RunFlow:
    known = b.catalog(spec)
    if "text" in known.runners:
        known.runners["text"] = RunnerSpec("text", gives_logits=False)
    devices = [b.device("a"), b.device("b"), b.device("c"), b.device("local", transport="local")]
    plan = make_plan(spec, devices, known)
    arms = {cell.cell_id: ARM for cell in plan.cells}
    past = {f"job:{cell.cell_id}@a": 10.0 * n for n, cell in enumerate(plan.cells)}
    return RunFlow(spec, plan, known, run_id="run", epoch=2, baselines=arms, past=past, hosts=hosts)


SPECS = _specs()
#: The pool's hosts: the one that `local` is; that and one that nothing measures; and one more that
#: is no host of a device.
HOSTS = (
    PoolHosts(),
    PoolHosts(frozenset({"node", "spare"}), {"": "node"}),
    PoolHosts(frozenset({"spare"}), {}),
)


class World:
    """What is outside of the flow, and what it truly did."""

    def __init__(self, spec: RunSpec, hosts: PoolHosts) -> None:
        self.flow = _flow(spec, hosts)
        self.hosts = hosts
        self.devices = {device.name: device for device in self.flow.devices}
        self.cells = sorted(one.cell.cell_id for one in self.flow.cells)
        #: One line a step, for people.
        self.log: list[str] = []
        self.tasks: list[HostTask] = []
        #: Hosts that each running task leaves alone, by its id.
        self.spared: dict[str, frozenset[str]] = {}
        #: Jobs that were told to end.
        self.told: set[AttemptId] = set()
        self.pauses: list[str] = []
        #: Jobs that a site has; those that the controller takes for lost too.
        self.jobs: list[DeviceJob] = []
        #: What the flow may believe: the attempt that each device has.
        self.current: dict[str, AttemptId] = {}
        self.submitted: set[AttemptId] = set()
        #: Terminal events that counted, by cell.
        self.counted: dict[str, list[JobFinished]] = {}
        self.delivered: list[JobFinished] = []
        self.ended_tasks: list[TaskEnded] = []
        self.finished: dict[str, CellResult] = {}
        #: Failures in a row by device, and devices that are to get nothing more.
        self.row: dict[str, int] = {}
        self.dead: set[str] = set()
        #: Tasks that ended with a result and an error.
        self.spoilt: set[str] = set()
        self.strays = 0
        #: Whether the flow waits to be told which cells are measured once more.
        self.asked = False
        self._marks = 0
        self.feed(Started())

    # -- feeding

    def feed(self, stimulus: Stimulus) -> None:
        fits = not isinstance(stimulus, JobEvent) or (
            self.current.get(stimulus.device) == stimulus.attempt_id
        )
        before = None if fits else self._snapshot()
        if isinstance(stimulus, JobFinished):
            self.delivered.append(stimulus)
            if fits:
                del self.current[stimulus.device]
                self.counted.setdefault(stimulus.job_id, []).append(stimulus)
                self._count_failures(stimulus)
        out = self.flow.handle(stimulus)
        if not fits:
            self.strays += 1
            assert out == [], f"a stray event led to {out}"
            assert self._snapshot() == before, "a stray event changed a cell"
        for item in out:
            match item:
                case StartTask(task=task, but=but):
                    self.tasks.append(task)
                    self.spared[task.task_id] = but
                    assert self.hosts.names - but, f"{task.task_id} has no host to run on"
                case CancelJob(attempt_id=attempt):
                    assert attempt in self.current.values(), f"{attempt} does not run"
                    self.told.add(attempt)
                case SubmitJob(job=job):
                    assert job.device not in self.current, f"{job.device} got a second job"
                    assert job.device not in self.dead, f"{job.device} was given up"
                    assert self._state(job.device) == "ready", f"{job.device} is not ready"
                    assert job.attempt_id not in self.submitted, f"{job.attempt_id} came twice"
                    self.submitted.add(job.attempt_id)
                    self.current[job.device] = job.attempt_id
                    self.jobs.append(job)
                case RetryLater(cell_id=cell_id):
                    self.pauses.append(cell_id)
                case FinishCell(result=result):
                    assert result.cell_id not in self.finished, f"{result.cell_id} ended twice"
                    self.finished[result.cell_id] = result
                case AskSecondLook():
                    assert len(self.finished) == len(self.cells), "not every cell was looked at"
                    self.asked = True
        self._check_hosts()
        for attempt in self.current.values():
            over = attempt.job_id in self.finished and not self.flow.interrupted
            assert not over or attempt in self.told, f"{attempt} goes on for a cell that ended"
        self.flow.validate()
        assert sum(self.flow.dropped.values()) == self.strays, self.flow.dropped

    def _check_hosts(self) -> None:
        """No task may be on a host while a device that is this host works."""
        for name, attempt in self.current.items():
            if self.devices[name].entry.transport != "local":
                continue
            host = self.hosts.host_of(self.devices[name].entry.site)
            for task in self.tasks:
                possible = self.hosts.names - self.spared[task.task_id]
                assert host not in possible, f"{task.task_id} may disturb {attempt} on {host}"

    def _count_failures(self, event: JobFinished) -> None:
        if isinstance(event.error, LeaseError | Interrupted):
            return
        failed = isinstance(event.error, DeviceLost)
        self.row[event.device] = self.row.get(event.device, 0) + 1 if failed else 0
        if self.row[event.device] == 3:
            self.dead.add(event.device)

    def _snapshot(self) -> list[object]:
        return [
            (one.state, len(one.story), len(one.attempts), one.started_at, one.run, one.avoid)
            for one in self.flow.cells
        ]

    def _finish(
        self, job: DeviceJob, error: FarmError | None, *, attempt: AttemptId | None = None
    ) -> JobFinished:
        self._marks += 1
        run = replace(RUN, deployed=Deployed(self._marks, 0, 0.1))
        at = f"t{self._marks}"
        which = attempt or job.attempt_id
        return JobFinished(which, job.device, at, None if error else run, error)

    def end_job(self, job: DeviceJob, error: FarmError | None) -> None:
        self.jobs.remove(job)
        self.feed(self._finish(job, error))

    def end_task(self, task: HostTask, error: FarmError | None = None) -> None:
        self.tasks.remove(task)
        ended = TaskEnded(task.task_id, None if error else RESULTS[type(task)], error)
        self.ended_tasks.append(ended)
        self.feed(ended)

    # -- the end

    def _second_look(self, which: int) -> str | None:
        if not self.asked:
            return None
        self.asked = False
        passed = [name for name in self.cells if self.finished[name].outcome == "passed"]
        chosen = passed[which % 2 :]
        self.feed(SecondLook(tuple(chosen)))
        self.cells = sorted(one.cell.cell_id for one in self.flow.cells)
        for name in chosen:
            twin = self.flow.cells[name + SUFFIX].cell if not self.flow.interrupted else None
            assert twin is None or twin.devices == (self.finished[name].device.name,)
        return ", ".join(chosen)

    def _retry_due(self, which: int) -> str | None:
        if cell_id := pick(self.pauses, which):
            self.pauses.remove(cell_id)
            self.feed(RetryDue(cell_id))
        return cell_id

    def _device(self, which: int, state: str) -> str:
        name = sorted(self.devices)[which % len(self.devices)]
        self.devices[name] = self.devices[name].marked(state, state if state != "ready" else "")
        self.feed(DeviceChanged(self.devices[name]))
        return f"{name} {state}"

    def drain(self) -> None:
        """Answer everything that is pending, and look at what came of the run."""
        for _ in range(DRAIN_LIMIT):
            if self.flow.interrupted:
                self._cancel()
                break
            if self.tasks:
                self.end_task(self.tasks[0])
            elif self.jobs:
                self.end_job(self.jobs[0], None)
            elif self.pauses:
                self._retry_due(0)
            elif self.asked:
                self._second_look(0)
            elif lost := [d for d in sorted(self.devices) if self._state(d) == "recovering"]:
                self._device(sorted(self.devices).index(lost[0]), "ready")
            else:
                break
        self._check()

    def _state(self, name: str) -> str:
        return self.devices[name].state

    def _cancel(self) -> None:
        for task in list(self.tasks):
            self.end_task(task, FarmError("cancelled"))
        for job in list(self.jobs):
            self.end_job(job, Interrupted("cancelled"))

    def _check(self) -> None:
        flow = self.flow
        open_cells = {one.cell.cell_id: one.state for one in flow.cells.open}
        assert flow.finished, f"everything is answered and cells are open: {open_cells}"
        assert not flow.roster.at_work, f"busy for ever: {flow.roster.at_work}"
        assert not self.current
        assert not flow.tasks.running
        assert sorted(self.finished) == self.cells
        assert self.finished == flow.results
        used: dict[tuple[str, str], str] = {}
        for one in flow.cells:
            self._check_cell(result := flow.results[one.cell.cell_id])
            if one.cell.group and result.pushed_bytes is not None:
                twin = used.setdefault((one.cell.group, result.device.name), result.cell_id)
                assert twin == result.cell_id, f"{twin} and {result.cell_id} ran on one device"
        for event in list(self.delivered):
            self.feed(event)
        assert self.finished == flow.results

    def _check_cell(self, result: CellResult) -> None:
        """The evidence of a result is of the last attempt that counted, and of no other."""
        real = [
            event
            for event in self.counted.get(result.cell_id, [])
            if not isinstance(event.error, LeaseError)
        ]
        ends = [(event.attempt, event.device, event.at) for event in real]
        shown = [(attempt.n, attempt.device, attempt.ended_at) for attempt in result.attempts]
        if result.flags[:1] in (("interrupted",), ("cancelled",), ("reference_failed",)):
            ends = ends[: len(shown)]
        assert shown == ends, f"{result.cell_id} shows the attempts {shown}, there were {ends}"
        assert len(shown) <= MAX_ATTEMPTS, f"{result.cell_id} was tried {len(shown)} times"
        if result.outcome in ("passed", "failed", "inconclusive"):
            last = real[-1].result
            assert last is not None, f"{result.cell_id} is {result.outcome} without evidence"
            assert real[-1].error is None, f"{result.cell_id} is {result.outcome} of an error"
            assert f"compare:{result.cell_id}" not in self.spoilt, "judged by a task that failed"
            assert result.pushed_bytes == last.deployed.pushed_bytes, "another attempt's evidence"
            assert result.device.name == real[-1].device
        else:
            assert result.pushed_bytes is None


def pick(items: Sequence[T], which: int) -> T | None:
    return items[which % len(items)] if items else None
