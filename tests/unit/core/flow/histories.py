"""Random histories of a run: a world that answers the flow in any order, and lies now and then.

A history is a string of bytes, two a step: what happens, and to which of those that it can happen
to. hypothesis draws and shrinks it. Whatever happens, the flow's invariants hold after each step,
and once everything is answered every cell has one result, made of what was really delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from farm.core.errors import (
    DeviceLost,
    DeviceUnfit,
    FarmError,
    Interrupted,
    LeaseError,
    RunnerCrashed,
    TransportError,
)
from farm.core.events import DeviceChanged, JobEvent, JobFinished, JobStarted
from farm.core.flow.flow import MAX_ATTEMPTS, RunFlow
from farm.core.flow.stimuli import (
    DeviceQuarantined,
    FinishCell,
    Interrupt,
    RetryDue,
    RetryLater,
    Started,
    StartTask,
    Stimulus,
    SubmitJob,
    TaskEnded,
)
from farm.core.plan import make_plan
from farm.core.result import CellResult
from farm.core.runtime import AttemptId, Deployed, DeviceJob, RunnerSpec
from farm.core.spec import DeviceRequest, Matrix, RunSpec
from farm.core.tasks import (
    CanaryTask,
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    ReferenceTask,
)
from tests.unit.core import builders as b

T = TypeVar("T")

RESULTS: dict[type[HostTask], HostTaskResult] = {
    ExportTask: b.export_result(),
    ReferenceTask: b.reference_result(),
    HostRunTask: b.host_result(),
    CompareTask: b.judgement(),
    CanaryTask: b.canary_program(),
}
RUN = b.run_result()
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


def _flow(spec: RunSpec) -> RunFlow:
    known = b.catalog(spec)
    if "text" in known.runners:
        known.runners["text"] = RunnerSpec("text", gives_logits=False)
    devices = [b.device("a"), b.device("b"), b.device("c"), b.device("local", transport="local")]
    return RunFlow(spec, make_plan(spec, devices, known), known, run_id="run", epoch=2)


SPECS = _specs()


class World:
    """What is outside of the flow, and what it truly did."""

    def __init__(self, spec: RunSpec) -> None:
        self.flow = _flow(spec)
        self.devices = {device.name: device for device in self.flow.devices}
        self.cells = sorted(one.cell.cell_id for one in self.flow.cells)
        #: One line a step, for people.
        self.log: list[str] = []
        self.tasks: list[HostTask] = []
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
                case StartTask(task=task):
                    self.tasks.append(task)
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
        self.flow.validate()
        assert sum(self.flow.dropped.values()) == self.strays, self.flow.dropped

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

    # -- steps

    def step(self, kind: int, which: int) -> None:
        name = STEPS[kind % len(STEPS)]
        if not name:
            return
        self.log.append(name)  # before it acts: what goes wrong in it has its name
        about = getattr(self, f"_{name}")(which)
        self.log[-1:] = [f"{name}: {about}"] if about else []

    def _task_ok(self, which: int) -> str | None:
        if task := pick(self.tasks, which):
            self.end_task(task)
        return task.task_id if task else None

    def _task_error(self, which: int) -> str | None:
        if task := pick(self.tasks, which):
            self.end_task(task, FarmError("the task failed"))
        return task.task_id if task else None

    def _task_again(self, which: int) -> str | None:
        if ended := pick(self.ended_tasks, which):
            self.feed(ended)
        return ended.task_id if ended else None

    def _job_started(self, which: int) -> str | None:
        if job := pick(self.jobs, which):
            self.feed(JobStarted(job.attempt_id, job.device, "began"))
        return _name(job.attempt_id) if job else None

    def _job_ok(self, which: int) -> str | None:
        return self._job_ends(which, lambda name: None)

    def _job_lost(self, which: int) -> str | None:
        return self._job_ends(which, lambda name: DeviceLost("gone", device=name))

    def _job_crashed(self, which: int) -> str | None:
        return self._job_ends(which, lambda name: RunnerCrashed("signal 11"))

    def _job_unfit(self, which: int) -> str | None:
        return self._job_ends(which, lambda name: DeviceUnfit("too small", device=name))

    def _job_held(self, which: int) -> str | None:
        return self._job_ends(which, lambda name: LeaseError("held by ann", device=name))

    def _job_silent(self, which: int) -> str | None:
        """A job ends with neither a result nor an error."""
        if job := pick(self.jobs, which):
            self.jobs.remove(job)
            self.feed(replace(self._finish(job, None), result=None))
        return _name(job.attempt_id) if job else None

    def _job_both(self, which: int) -> str | None:
        """A job ends with a result and an error."""
        if job := pick(self.jobs, which):
            self.jobs.remove(job)
            self.feed(replace(self._finish(job, None), error=RunnerCrashed("signal 6")))
        return _name(job.attempt_id) if job else None

    def _task_both(self, which: int) -> str | None:
        if task := pick(self.tasks, which):
            self.tasks.remove(task)
            self.spoilt.add(task.task_id)
            self.feed(TaskEnded(task.task_id, RESULTS[type(task)], FarmError("it failed too")))
        return task.task_id if task else None

    def _job_ends(self, which: int, error: Callable[[str], FarmError | None]) -> str | None:
        if job := pick(self.jobs, which):
            self.end_job(job, error(job.device))
        return _name(job.attempt_id) if job else None

    def _site_lost(self, which: int) -> str | None:
        """The controller says that a job is lost; the site still has it and may report later."""
        if job := pick(self.jobs, which):
            self.feed(self._finish(job, TransportError("the agent was lost")))
        return _name(job.attempt_id) if job else None

    def _ended_again(self, which: int) -> str | None:
        if event := pick(self.delivered, which):
            self.feed(event)
        return _name(event.attempt_id) if event else None

    def _other_run(self, which: int) -> str | None:
        return self._stray(which, lambda attempt: replace(attempt, run_id="earlier"))

    def _other_epoch(self, which: int) -> str | None:
        return self._stray(which, lambda attempt: replace(attempt, epoch=1))

    def _other_attempt(self, which: int) -> str | None:
        change = 1 if which % 2 else -1
        return self._stray(which // 2, lambda a: replace(a, attempt=a.attempt + change))

    def _other_cell(self, which: int) -> str | None:
        return self._stray(which, lambda attempt: replace(attempt, job_id="nobody's"))

    def _swapped_cell(self, which: int) -> str | None:
        other = self.cells[which % len(self.cells)]
        return self._stray(which // 8, lambda attempt: replace(attempt, job_id=other))

    def _stray(self, which: int, change: Callable[[AttemptId], AttemptId]) -> str | None:
        """An event that looks like one of a job that runs, and is another's."""
        job = pick(self.jobs, which)
        if job is None:
            return None
        attempt = change(job.attempt_id)
        event = self._finish(job, None, attempt=attempt)
        if which % 3 == 2:
            self.feed(JobStarted(attempt, job.device, event.at))
        else:
            self.feed(event)
        return _name(attempt)

    def _other_device(self, which: int) -> str | None:
        if job := pick(self.jobs, which):
            other = sorted(self.devices)[which // 8 % len(self.devices)]
            self.feed(self._finish(replace(job, device=other), None))
            if other == job.device:
                self.jobs.remove(job)
        return _name(job.attempt_id) if job else None

    def _device_gone(self, which: int) -> str:
        return self._device(which, "offline")

    def _device_recovering(self, which: int) -> str:
        return self._device(which, "recovering")

    def _device_back(self, which: int) -> str:
        return self._device(which, "ready")

    def _device(self, which: int, state: str) -> str:
        name = sorted(self.devices)[which % len(self.devices)]
        self.devices[name] = self.devices[name].marked(state, state if state != "ready" else "")
        self.feed(DeviceChanged(self.devices[name]))
        return f"{name} {state}"

    def _device_quarantined(self, which: int) -> str:
        name = sorted(self.devices)[which % len(self.devices)]
        self.dead.add(name)
        self.feed(DeviceQuarantined(name, "3 failures in a row"))
        return name

    def _retry_due(self, which: int) -> str | None:
        if cell_id := pick(self.pauses, which):
            self.pauses.remove(cell_id)
            self.feed(RetryDue(cell_id))
        return cell_id

    def _retry_any(self, which: int) -> str:
        cell_id = self.cells[which % len(self.cells)]
        self.feed(RetryDue(cell_id))
        return cell_id

    def _interrupt(self, which: int) -> str | None:
        if which % 2:  # else most histories would end with it
            return None
        self.feed(Interrupt())
        return "now"

    # -- the end

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
        if result.flags == ("interrupted",):
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


#: What the first byte of a step means; what is likely stands several times.
STEPS: tuple[str, ...] = (
    "",
    *("task_ok",) * 12,
    *("job_ok",) * 4,
    *("job_lost",) * 3,
    *("retry_due",) * 3,
    *(
        "task_error",
        "task_again",
        "job_started",
        "job_crashed",
        "job_unfit",
        "job_held",
        "job_silent",
        "job_both",
        "task_both",
    ),
    *("site_lost", "ended_again", "ended_again"),
    *("other_run", "other_epoch", "other_attempt", "other_attempt", "other_cell"),
    *("swapped_cell", "other_device"),
    *("device_gone", "device_recovering", "device_back", "device_back", "device_quarantined"),
    *("retry_any", "interrupt"),
)


def pick(items: Sequence[T], which: int) -> T | None:
    return items[which % len(items)] if items else None


def _name(attempt: AttemptId) -> str:
    return f"{attempt.job_id} ({attempt.run_id}, epoch {attempt.epoch}, {attempt.attempt})"


def play(history: bytes) -> World:
    """Play a history to its end.

    Raises:
        AssertionError: Something does not hold; names the steps that led there.
    """
    world = World(SPECS[history[0] % len(SPECS)])
    try:
        for kind, which in zip(history[1::2], history[2::2], strict=False):
            world.step(kind, which)
        world.drain()
    except Exception as error:
        steps = "\n  ".join(world.log)
        raise AssertionError(f"{type(error).__name__}: {error}\nafter:\n  {steps}") from error
    return world
