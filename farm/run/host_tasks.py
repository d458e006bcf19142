"""Host tasks of a run: given to the pool, shown, and what came of each as a journal row."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from farm import codec
from farm.core.artifact import BEGUN, ExportResult, StageEvent
from farm.core.errors import FarmError
from farm.core.flow.stimuli import TaskEnded
from farm.core.tasks import KIND_NAMES, HostTask, HostTaskResult
from farm.core.view import TaskFinished, TaskProgress, TaskStarted, ViewEvent
from farm.protocols import TaskPool

log = logging.getLogger(__name__)

#: Beginnings of the stages of a task in which others work: see farm.ui.view.
_NOT_ITS_OWN = ("waiting", "installing")


@dataclass(slots=True)
class _Running:
    task: HostTask
    started: float
    #: When it got a host, or had waited for somebody else there; None while it waits.
    begun: float | None = None


class HostTasks:
    """Gives tasks to a pool.

    Args:
        pool: Where they run.
        emit: Receives view events.
        on_task: Called with each task that ended and what came of it.
        estimates: Seconds that a task took last time, by task id.
        on_end: Called with each end; never raises.
        on_failure: Called with an error of a callback above, which ends the run.
    """

    def __init__(
        self,
        pool: TaskPool,
        emit: Callable[[ViewEvent], None],
        on_task: Callable[[HostTask, HostTaskResult | FarmError], None],
        estimates: Mapping[str, float],
        on_end: Callable[[TaskEnded], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._pool, self._emit, self._on_task, self._estimates = pool, emit, on_task, estimates
        self._on_end, self._on_failure = on_end, on_failure
        self._tasks: dict[str, asyncio.Task[HostTaskResult]] = {}
        self._rows: dict[str, dict[str, object]] = {}
        #: How long each task that did work took, by task id: the next run's estimates.
        self.durations_s: dict[str, float] = {}

    def start(self, task: HostTask, but: frozenset[str] = frozenset()) -> None:
        """Give a task to the pool; its end is reported exactly once.

        Args:
            task: What to do.
            but: Hosts that it leaves alone.
        """
        kind, name = _names(task)
        self._emit(TaskStarted(kind, name, self._estimates.get(task.task_id)))
        running = _Running(task, time.monotonic())
        future = asyncio.ensure_future(
            self._pool.run(task, lambda event: self._stage(running, event), but)
        )
        self._tasks[task.task_id] = future
        # A callback rather than the end of a coroutine: a task that is cancelled before its
        # first step never runs any of its own code.
        future.add_done_callback(lambda future: self._done(running, future))

    def row(self, task_id: str) -> dict[str, object]:
        """Return what the journal keeps of a task that ended, once."""
        return self._rows.pop(task_id)

    def cancel_all(self) -> None:
        """End every task. Returns at once."""
        for future in list(self._tasks.values()):
            future.cancel()

    async def ended(self) -> None:
        """Wait for the cancelled tasks."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _stage(self, running: _Running, event: StageEvent) -> None:
        now = time.monotonic()
        if event.name.startswith(_NOT_ITS_OWN):
            running.begun = None
        elif running.begun is None:
            running.begun = now
        if event.name == BEGUN:
            return
        kind, name = _names(running.task)
        self._emit(TaskProgress.of(kind, name, event, now - running.started))

    def _done(self, running: _Running, future: asyncio.Task[HostTaskResult]) -> None:
        """Report an end. An error in here would only be logged by asyncio and the run hang."""
        self._tasks.pop(running.task.task_id, None)
        try:
            ended = self._ended(running, future)
        except Exception as error:  # the fence of a callback: it ends the run
            self._on_failure(error)
        else:
            self._on_end(ended)

    def _ended(self, running: _Running, future: asyncio.Task[HostTaskResult]) -> TaskEnded:
        task, elapsed = running.task, time.monotonic() - running.started
        kind, name = _names(task)
        error = _error(task, future)
        result = None if error is not None else future.result()
        hit = bool(getattr(result, "cache_hit", False))
        if result is not None and not hit:
            # The next run's estimate: neither the wait for a host nor a toolchain's installation.
            waited = 0.0 if running.begun is None else running.begun - running.started
            self.durations_s[task.task_id] = elapsed - waited
        message = None if error is None else str(error)
        self._emit(TaskFinished(kind, name, elapsed, hit, message))
        self._rows[task.task_id] = {
            "task": task.task_id,
            "seconds": round(elapsed, 3),
            "cache_hit": hit,
            "error": message,
            "error_kind": None if error is None else type(error).__name__,
            "export": codec.to_data(result) if isinstance(result, ExportResult) else None,
        }
        outcome = error or result
        assert outcome is not None, "a task ends with a result or an error"
        self._on_task(task, outcome)
        return TaskEnded(task.task_id, result, error)


def _names(task: HostTask) -> tuple[str, str]:
    return KIND_NAMES[type(task)], task.task_id.partition(":")[2]


def _error(task: HostTask, future: asyncio.Task[HostTaskResult]) -> FarmError | None:
    if future.cancelled():
        return FarmError(f"{task.task_id} was cancelled")
    failure = future.exception()
    if failure is None or isinstance(failure, FarmError):
        return failure
    log.error("task %s", task.task_id, exc_info=failure)
    return FarmError(f"{task.task_id}: {type(failure).__name__}: {failure}")
