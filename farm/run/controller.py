"""The controller: performs what the flow decides, and feeds back what came of it.

One pump, one process. It owns the journal, the pool of export hosts and the sites; it decides
nothing about cells (farm.core.flow.flow does).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from farm import codec
from farm.clock import utc_now
from farm.core.artifact import ExportResult, ObjectRef, StageEvent
from farm.core.errors import FarmError, StoreError, TransportError
from farm.core.events import (
    DeviceChanged,
    DeviceRecovery,
    JobFinished,
    JobProgress,
    JobStarted,
    Numbered,
    SiteEvent,
)
from farm.core.flow.flow import RunFlow
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
from farm.core.runtime import DeviceJob
from farm.core.tasks import KIND_NAMES, HostTask, HostTaskResult
from farm.core.view import CellDone, DeviceNote, TaskFinished, TaskProgress, TaskStarted, ViewEvent
from farm.protocols import Site, TaskPool
from farm.run.device_health import Care
from farm.run.journal import Journal

log = logging.getLogger(__name__)

#: A poll returns at once when there are events, else after this long.
POLL_LINGER_S = 2.0
#: After this many failed polls in a row a site counts as lost.
_POLL_FAILURES = 3
_POLL_PAUSE_S = 0.5

Emit = Callable[[ViewEvent], None]


class Controller:
    """Runs one flow to its end.

    Args:
        flow: The decisions.
        pool: Where host tasks run.
        sites: By name; the empty name is this host's.
        journal: Where everything is recorded before it is acknowledged.
        emit: Receives view events; must return quickly and not raise.
        on_finished: Called with each JobFinished, for keeping its logs.
        on_task: Called with each host task that ended and what came of it.
        estimates: Seconds that a task took last time, by task id.
        store_home: FARM_HOME of this host, the source of objects for its own sites.
        care: Counts what speaks against devices.
    """

    def __init__(
        self,
        flow: RunFlow,
        *,
        pool: TaskPool,
        sites: Mapping[str, Site],
        journal: Journal,
        emit: Emit,
        on_finished: Callable[[JobFinished], None],
        on_task: Callable[[HostTask, HostTaskResult | FarmError], None],
        estimates: Mapping[str, float],
        store_home: str,
        care: Care,
    ) -> None:
        self._flow, self._pool, self._sites, self._journal = flow, pool, sites, journal
        self._emit, self._on_finished, self._estimates = emit, on_finished, estimates
        self._store_home, self._on_task, self._care = store_home, on_task, care
        #: What happened, or the error that ends the run because it can't be recorded.
        self._inbox: asyncio.Queue[Stimulus | StoreError] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[HostTaskResult]] = {}
        #: Jobs given to sites and not ended, by id, with the name of the site.
        self._jobs: dict[str, tuple[str, DeviceJob]] = {}
        #: How long each host task that did work took, by task id: the next run's estimates.
        self.durations_s: dict[str, float] = {}
        #: Seconds each device had a job.
        self.busy_s: dict[str, float] = {}
        self._job_started: dict[str, float] = {}
        self._task_rows: dict[str, dict[str, object]] = {}

    def interrupt(self) -> None:
        """End the run now; `run` returns when everything was told so."""
        self._inbox.put_nowait(Interrupt())

    async def run(self) -> None:
        """Run to the end of the flow.

        Raises:
            StoreError: The journal can't be written; nothing is acknowledged after that.
        """
        pollers = [asyncio.create_task(self._poll(site)) for site in self._sites.values()]
        try:
            await self._perform(self._flow.handle(Started()))
            while not self._flow.finished:
                stimulus = await self._inbox.get()
                if isinstance(stimulus, StoreError):
                    raise stimulus
                if isinstance(stimulus, TaskEnded):
                    self._journal.record([("task", self._task_rows.pop(stimulus.task_id))])
                await self._perform(self._flow.handle(stimulus))
        finally:
            for poller in pollers:
                poller.cancel()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*pollers, *self._tasks.values(), return_exceptions=True)

    # -- performing

    async def _perform(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case StartTask(task=task):
                    self._start_task(task)
                case SubmitJob():
                    await self._submit(instruction)
                case FinishCell(result=result):
                    self._journal.finish_cell(result)
                    self._emit(CellDone(result))
                    self._quarantine(self._care.cell_done(result))
                case RetryLater(cell_id=cell_id, delay_s=delay_s):
                    loop = asyncio.get_running_loop()
                    loop.call_later(delay_s, self._inbox.put_nowait, RetryDue(cell_id))
                case CancelAll():
                    await self._cancel_all()

    def _start_task(self, task: HostTask) -> None:
        kind, name = KIND_NAMES[type(task)], task.task_id.partition(":")[2]
        self._emit(TaskStarted(kind, name, self._estimates.get(task.task_id)))
        started = time.monotonic()
        begun: list[float] = []

        def on_stage(event: StageEvent) -> None:
            if not begun and event.name != "waiting":
                begun.append(time.monotonic())
            self._emit(TaskProgress.of(kind, name, event, time.monotonic() - started))

        running = asyncio.ensure_future(self._pool.run(task, on_stage))
        self._tasks[task.task_id] = running

        def ended(future: asyncio.Task[HostTaskResult]) -> None:
            # A callback rather than the end of a coroutine: a task that is cancelled before
            # its first step never runs any of its own code.
            self._tasks.pop(task.task_id, None)
            self._inbox.put_nowait(self._ended(task, kind, name, started, begun, future))

        running.add_done_callback(ended)

    def _ended(
        self,
        task: HostTask,
        kind: str,
        name: str,
        started: float,
        begun: list[float],
        future: asyncio.Task[HostTaskResult],
    ) -> TaskEnded:
        elapsed = time.monotonic() - started
        if future.cancelled():
            error: FarmError | None = FarmError(f"{task.task_id} was cancelled")
        else:
            failure = future.exception()
            if failure is None or isinstance(failure, FarmError):
                error = failure
            else:
                log.error("task %s", task.task_id, exc_info=failure)
                error = FarmError(f"{task.task_id}: {type(failure).__name__}: {failure}")
        result = None if error is not None else future.result()
        hit = bool(getattr(result, "cache_hit", False))
        if result is not None and not hit:
            # The next run's estimate: neither the wait for a host nor a toolchain's installation.
            self.durations_s[task.task_id] = (
                result.seconds
                if isinstance(result, ExportResult)
                else elapsed - (begun[0] - started if begun else 0.0)
            )
        self._emit(TaskFinished(kind, name, elapsed, hit, None if error is None else str(error)))
        self._task_rows[task.task_id] = {
            "task": task.task_id,
            "seconds": round(elapsed, 3),
            "cache_hit": hit,
            "error": None if error is None else str(error),
        }
        outcome = error or result
        assert outcome is not None, "a task ends with a result or an error"
        self._on_task(task, outcome)
        return TaskEnded(task.task_id, result, error)

    async def _submit(self, instruction: SubmitJob) -> None:
        job = instruction.job
        self._journal.record(
            [("leased", {"job": job.job_id, "attempt": job.attempt, "device": job.device})]
        )
        self._jobs[job.job_id] = (instruction.site, job)
        self._job_started[job.job_id] = time.monotonic()
        try:
            site = self._sites[instruction.site]
            await site.ensure(needed_objects(job), self._store_home)
            await site.submit([job])
        except FarmError as error:
            self._lose(job, error)

    def _lose(self, job: DeviceJob, error: FarmError) -> None:
        self._jobs.pop(job.job_id, None)
        self._inbox.put_nowait(JobFinished(job.attempt_id, job.device, utc_now(), None, error))

    async def _cancel_all(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        by_site: dict[str, list[str]] = {}
        for job_id, (site, _) in self._jobs.items():
            by_site.setdefault(site, []).append(job_id)
        for site, job_ids in by_site.items():
            try:
                async with asyncio.timeout(2.0):
                    await self._sites[site].cancel(job_ids)
            except (FarmError, TimeoutError) as error:
                log.warning("site %s did not take the cancellation: %s", site or "local", error)

    # -- listening

    async def _poll(self, site: Site) -> None:
        after, failures = 0, 0
        while True:
            try:
                events = await site.poll(after, POLL_LINGER_S)
                failures = 0
            except FarmError as error:
                failures += 1
                if failures >= _POLL_FAILURES:
                    self._site_lost(site, error)
                    return
                await asyncio.sleep(_POLL_PAUSE_S * failures)
                continue
            if events:
                try:
                    self._take(events)
                except StoreError as error:  # not recorded, so not acknowledged either
                    self._inbox.put_nowait(error)
                    return
                after = events[-1].seq

    def _take(self, events: list[Numbered]) -> None:
        """Record what matters, then let it act; the next poll acknowledges it.

        What is no event of this run's current attempts is neither recorded nor shown: the flow
        counts it.
        """
        events = [item for item in events if not self._flow.drops(item.event)]
        kept = [
            (type(item.event).__name__, _journaled(item.event))
            for item in events
            if isinstance(item.event, JobStarted | JobFinished | DeviceRecovery)
        ]
        if kept:
            self._journal.record(kept)
        for item in events:
            event = item.event
            if isinstance(event, JobStarted | JobProgress | JobFinished):
                self._emit(event)
            if isinstance(event, JobFinished):
                self._jobs.pop(event.job_id, None)
                spent = time.monotonic() - self._job_started.get(event.job_id, time.monotonic())
                self.busy_s[event.device] = self.busy_s.get(event.device, 0.0) + spent
                self._on_finished(event)
                # Before the job's end: nothing else may start on the device in between.
                self._quarantine(self._care.job_finished(event))
            self._pass_on(event)

    def _pass_on(self, event: SiteEvent) -> None:
        """Let an event act on the flow; what is only for people is shown."""
        match event:
            case JobStarted() | JobFinished():
                self._inbox.put_nowait(event)
            case DeviceChanged():
                seen = self._care.seen(event)
                self._emit(DeviceNote(seen.device.name, seen.device.reason or "is back"))
                self._inbox.put_nowait(seen)
            case DeviceRecovery():
                self._emit(DeviceNote(event.device, self._care.recovered(event)))
            case JobProgress():
                pass

    def _quarantine(self, decision: DeviceQuarantined | None) -> None:
        if decision is not None:
            self._journal.record([("quarantined", codec.to_data(decision))])
            self._emit(DeviceNote(decision.device, f"quarantined: {decision.reason}"))
            self._inbox.put_nowait(decision)

    def _site_lost(self, site: Site, error: FarmError) -> None:
        log.error("site %s is lost: %s", site.name, error)
        lost = TransportError(f"the agent of site {site.name or 'local'} was lost: {error}")
        for name, job in list(self._jobs.values()):
            if self._sites[name] is site:
                self._lose(job, lost)


def needed_objects(job: DeviceJob) -> list[ObjectRef]:
    """Objects that a site can't make itself: artifacts, and the runner of a baseline."""
    other = job.baseline
    files = [
        *job.own_files,
        *job.runner.files,
        *(() if other is None else (*other.artifact, *other.runner.files)),
    ]
    return [file.object for file in files]


def _journaled(event: JobStarted | JobFinished | DeviceRecovery) -> dict[str, object]:
    if isinstance(event, DeviceRecovery):
        data: dict[str, object] = codec.to_data(event)
        return data
    if isinstance(event, JobStarted):
        return {**codec.to_data(event.attempt_id), "device": event.device, "at": event.at}
    return {
        **codec.to_data(event.attempt_id),
        "device": event.device,
        "at": event.at,
        "error": None if event.error is None else str(event.error),
        "error_kind": None if event.error is None else type(event.error).__name__,
        "logs": [codec.to_data(ref) for ref in event.logs],
    }
