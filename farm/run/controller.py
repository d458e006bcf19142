"""The controller: performs what the flow decides, and feeds back what came of it.

One pump, one process. It owns the journal, the pool of export hosts and the sites; it decides
nothing about cells (farm.core.flow.flow does).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence

from farm import codec
from farm.core.errors import FarmError
from farm.core.events import (
    DeviceChanged,
    DeviceRecovery,
    JobFinished,
    JobProgress,
    JobStarted,
    SiteEvent,
)
from farm.core.flow.flow import RunFlow
from farm.core.flow.stimuli import (
    AskSecondLook,
    CancelAll,
    CancelCell,
    CancelJob,
    DeviceQuarantined,
    FinishCell,
    Instruction,
    Interrupt,
    RetryDue,
    RetryLater,
    SecondLook,
    Started,
    StartTask,
    Stimulus,
    SubmitJob,
    TaskEnded,
)
from farm.core.names import meant
from farm.core.result import CellResult
from farm.core.spec import Limits
from farm.core.tasks import HostTask, HostTaskResult
from farm.core.view import CellDone, DeviceNote, SecondSittings, ViewEvent
from farm.protocols import Site, TaskPool
from farm.run.device_health import Care
from farm.run.device_jobs import DeviceJobs
from farm.run.halt import Halt, halted_by, over_limit
from farm.run.host_tasks import HostTasks
from farm.run.job_data import journaled
from farm.run.journal import Journal
from farm.run.measured import Measured, measured
from farm.run.site_link import SiteLink
from farm.store.actions import object_refs

log = logging.getLogger(__name__)

#: What sites measured has to come to this host within so long, and at a run's end, and when it was
#: interrupted, seconds.
_COLLECT_S, _LAST_S, _HURRY_S = 1800.0, 60.0, 1.0

Emit = Callable[[ViewEvent], None]


class Controller:
    """Runs one flow to its end.

    Args:
        flow: The decisions.
        pool: Where host tasks run.
        sites: By name; the empty name is this host's.
        journal: Where everything is recorded before it is acknowledged.
        emit: Receives view events; must return quickly.
        on_finished: Called with each JobFinished, for keeping its logs.
        on_task: Called with each host task that ended and what came of it.
        estimates: Seconds that a task took last time, by task id.
        store_home: FARM_HOME of this host, the source of objects for its own sites.
        care: Counts what speaks against devices.
        alarm: Called with what somebody should look at.
        limits: Longest time of a job and of the run.
        suspicious: Names the cells whose first look leaves something open, given all results.
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
        alarm: Callable[[str], None],
        limits: Limits,
        suspicious: Callable[[Mapping[str, CellResult]], Sequence[str]] = lambda results: (),
    ) -> None:
        self._flow, self._journal = flow, journal
        self._emit, self._on_finished = emit, on_finished
        self._care, self._limits = care, limits
        self._suspicious = suspicious
        #: What happened, or the error that ends the run.
        self._inbox: asyncio.Queue[Stimulus | Exception] = asyncio.Queue()
        put = self._inbox.put_nowait
        self._host = HostTasks(pool, emit, on_task, estimates, on_end=put, on_failure=put)
        self._others: set[asyncio.Task[None]] = set()
        self._keeping: set[asyncio.Task[None]] = set()
        self._started_at: dict[str, str] = {}
        self._links: dict[str, SiteLink] = {}
        self._jobs = DeviceJobs(self._links, limits.job_s, on_end=put, spawn=self._spawn)
        self._links |= {
            name: SiteLink(
                name,
                site,
                run_id=flow.fence.run_id,
                epoch=flow.fence.epoch,
                entries=[d.entry for d in flow.devices if d.entry.site == name],
                store_home=store_home,
                take=self._take,
                lose=self._jobs.lose,
                emit=emit,
                alarm=alarm,
            )
            for name, site in sites.items()
        }

    @property
    def durations_s(self) -> Mapping[str, float]:
        """How long each host task that did work took, by task id: the next run's estimates."""
        return self._host.durations_s

    @property
    def busy_s(self) -> Mapping[str, float]:
        """Seconds that each device had a job."""
        return self._jobs.busy_s

    def cancel_cell(self, cell_id: str, by: str) -> str:
        """End one cell now; the run goes on.

        Returns:
            Why there is nothing to end; empty when it is told to end.
        """
        if cell_id not in self._flow.cells:
            known = [one.cell.cell_id for one in self._flow.cells]
            return f"this run has no cell {cell_id!r}{meant(cell_id, known)}"
        if cell_id in self._flow.results:
            return f"{cell_id} ended already: {self._flow.results[cell_id].outcome}"
        self._inbox.put_nowait(CancelCell(cell_id, by))
        return ""

    def interrupt(self) -> None:
        """End the run now; `run` returns when everything was told so."""
        self._inbox.put_nowait(Interrupt())

    async def run(self) -> Halt | None:
        """Run to the end of the flow, or to the first error that nobody foresaw.

        Returns:
            None at the flow's own end; else why the run ended, with everything cancelled. Nothing
            is acknowledged that could not be recorded.
        """
        for link in self._links.values():
            self._spawn(link.listen())
        timer = asyncio.timeout(self._limits.run_s)
        halt = None
        try:
            async with timer:
                await self._pump()
        except Exception as error:  # the fence of the run: it becomes the reason of every open cell
            expired = timer.expired()
            halt = over_limit(self._limits.run_s) if expired else halted_by(error)
            await self._cancel_all()
        finally:
            hurry = halt is not None or self._flow.interrupted
            if self._keeping:
                await asyncio.wait(self._keeping, timeout=_HURRY_S if hurry else _LAST_S)
            while halt is None and not self._inbox.empty():  # what failed after the last cell
                if isinstance(left := self._inbox.get_nowait(), Exception):
                    halt = halted_by(left)
            await self._jobs.close()
            others = list(self._others)
            for task in others:
                task.cancel()
            self._host.cancel_all()
            await asyncio.gather(*others, self._host.ended(), return_exceptions=True)
            if not hurry:
                await asyncio.gather(*(link.detach() for link in self._links.values()))
        return halt

    async def _pump(self) -> None:
        await self._perform(self._flow.handle(Started()))
        while not self._flow.finished:
            stimulus = await self._inbox.get()
            if isinstance(stimulus, Exception):
                raise stimulus
            if isinstance(stimulus, TaskEnded):
                self._journal.record([("task", self._host.row(stimulus.task_id))])
            await self._perform(self._flow.handle(stimulus))

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start a task whose error, should it have one, ends the run."""
        task = asyncio.ensure_future(work)
        self._others.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._others.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:  # native code may raise what is no Exception
                self._inbox.put_nowait(
                    error if isinstance(error, Exception) else RuntimeError(repr(error))
                )

        task.add_done_callback(ended)
        return task

    # -- performing

    async def _perform(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case StartTask(task=task, but=but):
                    self._host.start(task, but)
                case CancelJob(attempt_id=attempt, site=site):
                    self._jobs.cancel(attempt, site)
                case SubmitJob(job=job, site=site):
                    leased = {"job": job.job_id, "attempt": job.attempt, "device": job.device}
                    self._journal.record([("leased", leased)])
                    self._jobs.submit(job, site)
                case FinishCell(result=result):
                    self._journal.finish_cell(result)
                    self._emit(CellDone(result))
                    self._quarantine(self._care.cell_done(result))
                case RetryLater(cell_id=cell_id, delay_s=delay_s):
                    loop = asyncio.get_running_loop()
                    loop.call_later(delay_s, self._inbox.put_nowait, RetryDue(cell_id))
                case AskSecondLook():
                    self._choose_second()
                case CancelAll():
                    await self._cancel_all()

    def _choose_second(self) -> None:
        chosen = tuple(self._suspicious(self._flow.results))
        self._journal.record([("second_look", {"cells": chosen})])
        if chosen:
            self._emit(SecondSittings(chosen))
        self._inbox.put_nowait(SecondLook(chosen))

    async def _cancel_all(self) -> None:
        self._host.cancel_all()
        await self._jobs.cancel_all()

    # -- listening

    def _take(self, came: Sequence[SiteEvent]) -> None:
        """Record what matters, then let it act; the next poll acknowledges it.

        What is no event of this run's current attempts is neither recorded nor shown: the flow
        counts it.
        """
        events = [e for e in came if not self._jobs.is_given_up(e) and not self._flow.drops(e)]
        kept = [
            (type(event).__name__, journaled(event))
            for event in events
            if isinstance(event, JobStarted | JobFinished | DeviceRecovery)
        ]
        if kept:
            self._journal.record(kept, self._measured(events))
        for event in events:
            if isinstance(event, JobStarted | JobProgress | JobFinished):
                self._emit(event)
            self._jobs.heard(event)
            if isinstance(event, JobFinished):
                link = self._links[self._flow.roster[event.device].entry.site]
                self._keeping.add(keeping := self._spawn(self._keep(event, link)))
                keeping.add_done_callback(self._keeping.discard)
                # Before the job's end: nothing else may start on the device in between.
                self._quarantine(self._care.job_finished(event))
            self._pass_on(event)

    async def _keep(self, event: JobFinished, link: SiteLink) -> None:
        """Bring what an attempt left to this host; comparing asks for it by itself."""
        run = event.result
        left = () if run is None else (run.launches, run.canary, run.replay)
        if refs := list(dict.fromkeys(object_refs((left, event.logs)))):
            await link.collect(refs, _COLLECT_S)
        self._on_finished(event)

    def _measured(self, events: Sequence[SiteEvent]) -> list[tuple[str, Measured]]:
        """What devices measured, with all that comparing needs of this moment."""
        found = []
        for event in events:
            if isinstance(event, JobStarted):
                self._started_at[event.job_id] = event.at
            if isinstance(event, JobFinished) and event.result is not None:
                job = self._jobs.get(event.job_id)
                if job is None or job.attempt != event.attempt:
                    continue  # none of ours: the flow makes nothing of it either
                device = self._flow.roster[event.device]
                started_at = self._started_at.get(event.job_id)
                found.append((job.cell_id, measured(job, event, device, started_at)))
        return found

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
