"""The session of one device: its jobs one after another, in a thread of its own.

Jobs of several runs wait in one queue, in the order of farm.core.rules.turns. Jobs that follow each
other share one connection; the thread waits a while for the next one.
Every job ends in exactly one JobFinished, however it ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from farm.clock import utc_now
from farm.core.artifact import ObjectRef
from farm.core.device import DeviceEntry, InQueue
from farm.core.errors import FarmError
from farm.core.events import JobFinished, JobProgress, JobStarted, SiteEvent
from farm.core.rules.turns import Turn, in_turn, place_text
from farm.core.runtime import DeviceJob, DeviceRunResult
from farm.site.context import SiteContext
from farm.site.device.connection import Connection
from farm.site.device.turns import Turns
from farm.site.job.job import JobRun

log = logging.getLogger(__name__)

#: How long a connection is kept for the next job, seconds.
KEEP_S = 20.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """A job in the queue, and what its run was told of its place."""

    job: DeviceJob
    turn: Turn
    since: float
    told: str = ""


class DeviceSession:
    """Queue and thread of one device.

    Args:
        entry: The device.
        context: Folders and factories of this host.
        emit: Takes events; called from the session's thread.
    """

    def __init__(
        self, entry: DeviceEntry, context: SiteContext, emit: Callable[[SiteEvent], None]
    ) -> None:
        self.entry = entry
        self._context = context
        self._emit = emit
        # Protects everything below: submit and cancel come from the agent's loop. Notified of jobs.
        self._lock = threading.Condition()
        self._closing = False
        self._queue: list[_Waiting] = []
        self._arrived = 0
        #: Whom the next job lets go first; None before the first one.
        self._turns: Turns | None = None
        self._running: JobRun | None = None
        self._thread: threading.Thread | None = None

    def submit(self, job: DeviceJob) -> None:
        """Queue a job."""
        with self._lock:
            self._arrived += 1
            self._queue.append(_Waiting(job, Turn(job.priority, self._arrived), time.monotonic()))
            self._lock.notify()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name=f"farm-{self.entry.name}", daemon=True
                )
                self._thread.start()
        self._tell_places()

    def cancel(self, which: Callable[[DeviceJob], bool], error: FarmError) -> None:
        """End jobs, running or queued. Returns at once."""
        with self._lock:
            gone = [one.job for one in self._queue if which(one.job)]
            self._queue = [one for one in self._queue if not which(one.job)]
            running = self._running
        for job in gone:
            self._finish(job, None, error, ())
        self._tell_places()
        if running is not None and which(running.job):
            running.cancel(error)

    @property
    def busy(self) -> bool:
        """True while a job runs or waits."""
        with self._lock:
            return self._running is not None or bool(self._queue)

    def close(self) -> None:
        """Keep no connection once the jobs have ended. Returns at once."""
        with self._lock:
            self._closing = True
            self._lock.notify()

    def join(self, timeout_s: float) -> bool:
        """Close, and wait for the thread to end; False when it still works."""
        self.close()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
            return not thread.is_alive()
        return True

    def abandon(self, error: FarmError) -> None:
        """Report the running job as ended although its thread still hangs."""
        with self._lock:
            running = self._running
            self._running = None
        if running is not None:
            self._finish(running.job, None, error, running.logs)

    def _work(self) -> None:
        kept: Connection | None = None
        while (run := self._next(kept)) is not None:
            job = run.job
            self._tell_places()
            self._emit(JobStarted(job.attempt_id, job.device, utc_now()))
            result, error = self._fenced(run)
            with self._lock:
                abandoned = self._running is not run
                self._running = None
            kept = run.take_connection()
            if not abandoned:
                self._finish(job, result, error, run.logs)
        if kept is not None:
            kept.close()

    def _next(self, kept: Connection | None) -> JobRun | None:
        """Wait for a job as long as there is a connection to keep; None ends the thread."""
        with self._lock:
            if kept is not None:
                self._lock.wait_for(lambda: self._queue or self._closing, KEEP_S)
            if not self._queue:
                self._thread = None
                return None
            first = in_turn((one.turn, one) for one in self._queue)[0]
            self._queue.remove(first)
            self._running = JobRun(
                first.job, self.entry, self._context, self._progress, kept, self._turns
            )
            self._turns = self._turns or Turns()
            return self._running

    @property
    def queue(self) -> tuple[InQueue, ...]:
        """The jobs that wait, in the order in which they are served."""
        now = time.monotonic()
        with self._lock:
            waiting = in_turn((one.turn, one) for one in self._queue)
        return tuple(
            InQueue(w.job.run_id, None, w.job.job_id, w.turn.priority, now - w.since)
            for w in waiting
        )

    def _tell_places(self) -> None:
        """Tell each run that waits where it stands, when that has changed."""
        with self._lock:
            now = "" if self._running is None else f"run {self._running.job.run_id}"
            if not now:
                return  # the first of the queue is about to begin
            for ahead, one in enumerate(in_turn((one.turn, one) for one in self._queue)):
                text = place_text(ahead, now)
                if one.told != text:
                    one.told = text
                    job = one.job  # told with the lock held: never after its start
                    self._emit(JobProgress(job.attempt_id, job.device, "queue", detail=text))

    def _progress(self, event: JobProgress) -> None:
        """Pass progress on, but none of a job that was given up."""
        with self._lock:
            if self._running is None or self._running.job.attempt_id != event.attempt_id:
                return
        self._emit(event)

    def _fenced(self, run: JobRun) -> tuple[DeviceRunResult | None, FarmError | None]:
        """Fence one job from all others: a defect of ours ends it, not the session."""
        try:
            return run.run(), None
        except FarmError as error:
            return None, error
        except Exception as error:
            log.exception("%s: job %s", self.entry.name, run.job.job_id)
            return None, FarmError(
                f"{self.entry.name}: farm itself failed: {type(error).__name__}: {error}",
                device=self.entry.name,
            )

    def _finish(
        self,
        job: DeviceJob,
        result: DeviceRunResult | None,
        error: FarmError | None,
        logs: list[ObjectRef] | tuple[ObjectRef, ...],
    ) -> None:
        self._emit(
            JobFinished(job.attempt_id, job.device, utc_now(), result, error, logs=tuple(logs))
        )
