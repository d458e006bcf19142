"""Random histories of a run: a world that answers the flow in any order, and lies now and then.

A history is a string of bytes, two a step: what happens, and to which of those that it can happen
to. hypothesis draws and shrinks it. Whatever happens, the flow's invariants hold after each step,
and once everything is answered every cell has one result, made of what was really delivered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from farm.core.errors import (
    DeviceLost,
    DeviceUnfit,
    FarmError,
    LeaseError,
    RunnerCrashed,
    TransportError,
)
from farm.core.events import JobStarted
from farm.core.flow.stimuli import (
    CancelCell,
    DeviceQuarantined,
    Interrupt,
    RetryDue,
    TaskEnded,
)
from farm.core.runtime import AttemptId
from tests.unit.core.flow.world import HOSTS, RESULTS, SPECS, World, pick


class History(World):
    """A world with everything that can happen to it."""

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

    def _device_quarantined(self, which: int) -> str:
        name = sorted(self.devices)[which % len(self.devices)]
        self.dead.add(name)
        self.feed(DeviceQuarantined(name, "3 failures in a row"))
        return name

    def _retry_any(self, which: int) -> str:
        cell_id = self.cells[which % len(self.cells)]
        self.feed(RetryDue(cell_id))
        return cell_id

    def _cancel_cell(self, which: int) -> str:
        cell_id = self.cells[which % len(self.cells)]
        self.feed(CancelCell(cell_id, "ann@desk"))
        assert cell_id in self.finished, "a cancelled cell has its result at once"
        return cell_id

    def _interrupt(self, which: int) -> str | None:
        if which % 2:  # else most histories would end with it
            return None
        self.feed(Interrupt())
        return "now"


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
    *("retry_any", "interrupt", "second_look", "second_look", "cancel_cell"),
)


def _name(attempt: AttemptId) -> str:
    return f"{attempt.job_id} ({attempt.run_id}, epoch {attempt.epoch}, {attempt.attempt})"


def play(history: bytes) -> History:
    """Play a history to its end.

    Raises:
        AssertionError: Something does not hold; names the steps that led there.
    """
    spec, hosts = SPECS[history[0] % len(SPECS)], HOSTS[history[0] // len(SPECS) % len(HOSTS)]
    world = History(spec, hosts)
    try:
        for kind, which in zip(history[1::2], history[2::2], strict=False):
            world.step(kind, which)
        world.drain()
    except Exception as error:
        steps = "\n  ".join(world.log)
        raise AssertionError(f"{type(error).__name__}: {error}\nafter:\n  {steps}") from error
    return world
