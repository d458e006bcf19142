"""Jobs that a run has given to sites: sent, limited in time, cancelled, forgotten.

Each is carried beside the pump: a slow site stops nothing else. It decides nothing about cells.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping

from farm.clock import utc_now
from farm.core.errors import FarmError, Interrupted, RunnerTimeout
from farm.core.events import JobEvent, JobFinished, JobProgress, JobStarted, SiteEvent
from farm.core.runtime import AttemptId, DeviceJob
from farm.run.site_link import SiteLink

Spawn = Callable[[Coroutine[object, object, None]], "asyncio.Task[None]"]


class DeviceJobs:
    """The jobs of one run that have not ended.

    Args:
        links: The sites, by name.
        limit_s: Longest time of a job on its device, and of a silent one on its way there.
        on_end: Called with the end of each job that its site will not report.
        spawn: Starts a task whose error ends the run.
    """

    def __init__(
        self,
        links: Mapping[str, SiteLink],
        limit_s: float,
        *,
        on_end: Callable[[JobFinished], None],
        spawn: Spawn,
    ) -> None:
        self._links, self._limit_s, self._on_end, self._spawn = links, limit_s, on_end, spawn
        #: By id, with the name of the site.
        self._jobs: dict[str, tuple[str, DeviceJob]] = {}
        #: What carries jobs to sites, and what ends those that take too long, by job id.
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._overdue: dict[str, asyncio.TimerHandle] = {}
        #: Job and attempt of jobs that were given up: what still comes of them is nothing new.
        self._given_up: set[tuple[str, int]] = set()
        self._cancelling: set[asyncio.Task[None]] = set()
        #: Seconds each device had a job.
        self.busy_s: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def get(self, job_id: str) -> DeviceJob | None:
        """Return a job that has not ended."""
        return self._jobs.get(job_id, ("", None))[1]

    def submit(self, job: DeviceJob, site: str) -> None:
        """Send a job to its site."""
        self._jobs[job.job_id] = (site, job)
        self._since[job.job_id] = time.monotonic()
        self._limit(job.job_id)
        self._sending[job.job_id] = self._spawn(self._send(site, job))

    def heard(self, event: SiteEvent) -> None:
        """Take in what a site says of a job of ours: the wait in its queue is not the job's."""
        match event:
            case JobStarted() | JobProgress(stage="queue"):
                if event.job_id in self._jobs:
                    self._limit(event.job_id)
                    self._since[event.job_id] = time.monotonic()
            case JobFinished():
                self._forget(event.job_id)
                spent = time.monotonic() - self._since.pop(event.job_id, time.monotonic())
                self.busy_s[event.device] = self.busy_s.get(event.device, 0.0) + spent

    def is_given_up(self, event: SiteEvent) -> bool:
        """Whether an event is of a job that was given up."""
        return isinstance(event, JobEvent) and (event.job_id, event.attempt) in self._given_up

    def lose(self, job: DeviceJob, error: FarmError) -> None:
        """End a job that will never end by itself."""
        self._forget(job.job_id)
        self._on_end(JobFinished(job.attempt_id, job.device, utc_now(), None, error))

    def cancel(self, attempt: AttemptId, site: str) -> None:
        """End one job; its end frees the device, wherever it comes from."""
        job = self.get(attempt.job_id)
        if attempt.job_id in self._sending and job is not None:
            # Whether the site has taken it is not known: what it says of it is nothing new.
            self._abandon(site, job, Interrupted("cancelled before its site had taken it"))
        else:
            self._tell(site, attempt.job_id)

    async def cancel_all(self) -> None:
        """End every job; a site that doesn't take that in time is left to its orphan grace."""
        for sending in self._sending.values():
            sending.cancel()
        by_site: dict[str, list[str]] = {}
        for job_id, (site, _) in self._jobs.items():
            by_site.setdefault(site, []).append(job_id)
        await asyncio.gather(*(self._links[site].cancel(ids) for site, ids in by_site.items()))

    async def close(self) -> None:
        """End what carries and limits jobs; cancellations on their way get to their end."""
        for handle in self._overdue.values():
            handle.cancel()
        await asyncio.gather(*self._cancelling, return_exceptions=True)

    def _limit(self, job_id: str) -> None:
        """Count the time of a job from now."""
        if handle := self._overdue.pop(job_id, None):
            handle.cancel()
        site, job = self._jobs[job_id]
        loop = asyncio.get_running_loop()
        self._overdue[job_id] = loop.call_later(self._limit_s, self._too_long, site, job)

    def _too_long(self, site: str, job: DeviceJob) -> None:
        """End a job that reached its limit; its site may never answer."""
        text = f"{job.device}: the job reached limits.job_s ({self._limit_s:g} s)"
        self._abandon(site, job, RunnerTimeout(text, device=job.device))

    def _abandon(self, site: str, job: DeviceJob, error: FarmError) -> None:
        if sending := self._sending.pop(job.job_id, None):
            sending.cancel()
        self._given_up.add((job.job_id, job.attempt))
        self.lose(job, error)
        self._tell(site, job.job_id)

    def _tell(self, site: str, job_id: str) -> None:
        self._cancelling.add(telling := self._spawn(self._links[site].cancel([job_id])))
        telling.add_done_callback(self._cancelling.discard)

    async def _send(self, site: str, job: DeviceJob) -> None:
        try:
            await self._links[site].send(job)
        except FarmError as error:
            self.lose(job, error)
        finally:  # its cell may have been sent again by now
            if self._sending.get(job.job_id) is asyncio.current_task():
                del self._sending[job.job_id]

    def _forget(self, job_id: str) -> None:
        if handle := self._overdue.pop(job_id, None):
            handle.cancel()
        site, _ = self._jobs.pop(job_id, ("", None))
        if site in self._links:
            self._links[site].forget(job_id)
