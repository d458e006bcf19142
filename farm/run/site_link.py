"""What a run has to do with one site: it attaches, sends jobs, listens, and notices a new agent.

Each site has its own; a slow one stops no other. It decides nothing about cells.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from farm.clock import Deadline
from farm.core.artifact import ObjectRef
from farm.core.device import DeviceEntry
from farm.core.errors import FarmError, SiteLost
from farm.core.events import Attached, DeviceChanged, JobProgress, SiteEvent
from farm.core.runtime import DeviceJob
from farm.core.view import DeviceNote, ViewEvent
from farm.protocols import Site
from farm.run.job_data import needed_objects

log = logging.getLogger(__name__)

#: A poll returns at once when there are events, else after this long.
POLL_LINGER_S = 2.0
#: A site that no poll reached for so long counts as lost, seconds; a busy one may miss some.
SITE_LOST_S = 30.0
_POLL_PAUSE_S = 0.5
#: Longest time for a site to take a cancellation, or a farewell, seconds.
_SHORT_S = 1.0


class SiteLink:
    """One site of a run.

    Args:
        name: Its name; empty is this host's.
        site: The site.
        run_id: The run.
        epoch: Which part of it.
        entries: The run's devices of this site.
        store_home: FARM_HOME of this host, the source of objects.
        take: Receives events, in order; they are acknowledged when it returns.
        lose: Called with a job that will never end by itself, and why.
        emit: Receives view events.
        alarm: Called with what somebody should look at.
    """

    def __init__(
        self,
        name: str,
        site: Site,
        *,
        run_id: str,
        epoch: int,
        entries: Sequence[DeviceEntry],
        store_home: str,
        take: Callable[[Sequence[SiteEvent]], None],
        lose: Callable[[DeviceJob, FarmError], None],
        emit: Callable[[ViewEvent], None],
        alarm: Callable[[str], None],
    ) -> None:
        self._name, self._site = name or "local", site
        self._run_id, self._epoch, self._entries = run_id, epoch, entries
        self._store_home = store_home
        self._take, self._lose, self._emit, self._alarm = take, lose, emit, alarm
        self._boot_id = ""
        self._after = 0
        #: Set while the agent that answers is the one that was attached to.
        self._attached = asyncio.Event()
        #: Why no job can go there any more.
        self._lost: SiteLost | None = None
        #: Jobs that the agent has taken and not ended, by id.
        self._there: dict[str, DeviceJob] = {}

    async def send(self, job: DeviceJob) -> None:
        """Bring what a job needs to its site, and submit it there; again to each new agent.

        Raises:
            FarmError: The site refused it, or is lost.
        """
        while True:
            await self._attached.wait()
            if self._lost is not None:
                raise self._lost
            boot_id = self._boot_id
            try:
                await self._bring(job)
                await self._site.submit([job], boot_id)
            except SiteLost as error:
                log.warning("site %s: %s is sent again: %s", self._name, job.job_id, error)
                if boot_id == self._boot_id and self._lost is None:
                    self._attached.clear()
                continue
            if self._lost is not None:  # given up meanwhile: nobody listens for its end
                raise self._lost
            if boot_id == self._boot_id:
                self._there[job.job_id] = job
                return

    def forget(self, job_id: str) -> None:
        """Note that a job ended, or was given up."""
        self._there.pop(job_id, None)

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """End jobs; a site that doesn't take it in time is left to its orphan grace."""
        try:
            async with asyncio.timeout(_SHORT_S):
                await self._site.cancel(self._run_id, job_ids)
        except (FarmError, TimeoutError) as error:
            log.warning("site %s did not take the cancellation: %s", self._name, error)

    async def collect(self, refs: Sequence[ObjectRef], limit_s: float) -> None:
        """Bring objects of the site to this host; what doesn't come is an alarm."""
        try:
            async with asyncio.timeout(limit_s):
                self._remark(await self._site.collect(refs))
        except (FarmError, TimeoutError) as error:
            names = ", ".join(ref.name for ref in refs[:3])
            self._alarm(
                f"site {self._name}: {names} did not come here: {str(error) or 'no answer'}"
            )

    async def detach(self) -> None:
        """Say farewell: the run is over, and no resume needs what the site kept."""
        try:
            async with asyncio.timeout(_SHORT_S):
                await self._site.detach(self._run_id)
        except (FarmError, TimeoutError) as error:
            log.warning("site %s did not take the farewell: %s", self._name, error)

    async def listen(self) -> None:
        """Take in what the site says, until it is lost."""
        reached = Deadline(SITE_LOST_S)
        while True:
            try:
                async with asyncio.timeout(reached.remaining_s):
                    if not self._attached.is_set():
                        await self._attach()
                    polled = await self._site.poll(
                        self._run_id, self._after, POLL_LINGER_S, self._boot_id
                    )
            except (FarmError, TimeoutError) as error:
                if reached.passed:
                    self._give_up(f"not reached for {SITE_LOST_S:g} s: {error or 'no answer'}")
                    return
                await asyncio.sleep(_POLL_PAUSE_S)
                continue
            reached = Deadline(SITE_LOST_S)
            if polled.boot_id != self._boot_id:
                self._attached.clear()
            elif polled.events:
                self._take([item.event for item in polled.events])
                self._after = polled.events[-1].seq

    async def _attach(self) -> None:
        found = await self._site.attach(self._run_id, self._epoch)
        for what in found.damaged:
            self._alarm(f"site {self._name}: {what}")
        if found.boot_id != self._boot_id:
            if self._boot_id:
                await self._started_anew(found)
            for device, run_id in found.others:
                self._emit(DeviceNote(device, f"works for run {run_id}"))
            self._boot_id, self._after = found.boot_id, 0
        self._attached.set()

    async def _started_anew(self, found: Attached) -> None:
        """Give up the jobs that the new agent doesn't have, and tell it the devices."""
        gone = [job for job in self._there.values() if job.attempt_id not in found.jobs]
        why = f"the agent of site {self._name} was started anew"
        self._alarm(f"{why}; jobs lost: {len(gone)}")
        for job in gone:
            self.forget(job.job_id)
            self._lose(job, SiteLost(f"{job.device}: {why}, and the job was lost with the old one"))
        devices = await self._site.inventory(self._entries, adb_auto=False)
        self._take([DeviceChanged(device) for device in devices])

    async def _bring(self, job: DeviceJob) -> None:
        refs = needed_objects(job)
        total = sum(ref.size_bytes for ref in refs)

        def progress(done: int) -> None:
            self._emit(JobProgress(job.attempt_id, job.device, "transfer", done, total, "bytes"))

        self._remark(await self._site.ensure(refs, self._store_home, progress))

    def _remark(self, remarks: Sequence[str]) -> None:
        for remark in remarks:
            self._alarm(f"site {self._name}: {remark}")

    def _give_up(self, reason: str) -> None:
        log.error("site %s is lost: %s", self._name, reason)
        self._lost = SiteLost(f"the agent of site {self._name} was lost: {reason}")
        for job in list(self._there.values()):
            self.forget(job.job_id)
            self._lose(job, self._lost)
        self._attached.set()  # whoever waits learns of it
