"""The site agent: everything the controller asks of one host with devices.

A plain async class; nothing here knows Ray. Sessions work in threads of their own, so a frozen
device stops no other one, and the event loop never blocks.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import runners
from farm import transports
from farm.clock import Deadline, utc_now
from farm.codec import digest
from farm.core.artifact import ObjectRef
from farm.core.device import Device, DeviceEntry
from farm.core.errors import (
    ConnectError,
    DeviceLost,
    FarmError,
    Interrupted,
    PlanError,
    SiteLost,
    StoreError,
    TransportTimeout,
)
from farm.core.events import (
    Attached,
    Handshake,
    JobEvent,
    JobFinished,
    JobStarted,
    Polled,
    SiteEvent,
)
from farm.core.runner import RunnerSpec
from farm.core.runtime import AttemptId, DeviceJob
from farm.host.source_tree import tree_sha256
from farm.paths import quarantine_file, store_root
from farm.protocols import PROBE_LIMIT_S, ByteProgress, OpenTransport, Runner
from farm.site.agent.attached import AttachedRun, AttachedRuns
from farm.site.agent.discovery import Discover, discover_adb
from farm.site.agent.inventory import Seen, look
from farm.site.agent.revisit import Revisitor
from farm.site.agent.session import DeviceSession
from farm.site.agent.threads import in_thread
from farm.site.context import Limits, SiteContext
from farm.state.health_book import HealthBook
from farm.store.bring import bring_objects
from farm.store.objects import ContentStore

log = logging.getLogger(__name__)

#: Errors after which a device counts as gone until it answers again.
_LOST = (ConnectError, DeviceLost, TransportTimeout)

PROTOCOL = 2
#: Without a poll for this long the controller counts as gone, seconds.
ORPHAN_GRACE_S = 60.0
#: `close` waits this long for sessions to clean their devices, seconds.
CLOSE_S = 3.3


class SiteAgent:
    """One host's devices.

    Args:
        home: FARM_HOME of this host.
        name: Name of the site; empty is the controller's own host.
        outboxes: Where events are kept for controllers that come back, and for the agent that
            comes after this one; None where nobody ever does.
        orphan_grace_s: Jobs are cancelled this long after the last poll.
        open_transport: Makes the transport of an entry.
        find_runner: Makes the runner of a job.
        discover: Entries of the attached adb devices.
        limits: Times that decide about lost devices.
        seen: Devices that were probed here a moment ago: the answer to the first such question.
    """

    def __init__(
        self,
        home: Path,
        *,
        name: str = "",
        outboxes: Path | None = None,
        orphan_grace_s: float = ORPHAN_GRACE_S,
        open_transport: OpenTransport = transports.open,
        find_runner: Callable[[RunnerSpec], Runner] = runners.find,
        discover: Discover = discover_adb,
        limits: Limits | None = None,
        seen: Seen | None = None,
    ) -> None:
        self.name = name
        self._context = SiteContext(
            home,
            ContentStore(store_root(home)),
            open_transport,
            find_runner,
            limits or Limits(),
        )
        self._grace_s = orphan_grace_s
        self._discover = discover
        self._runs = AttachedRuns(outboxes, orphan_grace_s)
        self._revisitor = Revisitor(self._context, self._runs.tell_all)
        self._devices: dict[str, Device] = {}
        self._seen = seen
        self._sessions: dict[str, DeviceSession] = {}
        # Protects the two below: sessions report the ends of jobs from their own threads.
        self._lock = threading.Lock()
        #: Jobs that have not ended.
        self._jobs: dict[AttemptId, DeviceJob] = {}
        #: Attempts of an earlier epoch that go on as attempts of this one.
        self._adopted: dict[AttemptId, AttemptId] = {}
        self._watch: asyncio.Task[None] | None = None

    async def handshake(self) -> Handshake:
        """Say which farm this is."""
        tree = await in_thread(tree_sha256)
        return Handshake(PROTOCOL, tree, platform.python_version(), self._runs.boot_id)

    async def inventory(
        self,
        entries: Sequence[DeviceEntry],
        *,
        adb_auto: bool,
        limit_s: float = PROBE_LIMIT_S,
        recover: bool = False,
    ) -> list[Device]:
        """Probe devices; see `farm.protocols.Site`."""
        seen, self._seen = self._seen, None
        if seen is not None and (seen.entries, seen.adb_auto) == (tuple(entries), adb_auto):
            devices = list(seen.devices)
        else:
            discover = partial(self._discover, entries, self.name) if adb_auto else None
            devices = await in_thread(
                lambda: look(entries, discover, self._context, limit_s, self.name)
            )
        if recover:
            devices = await in_thread(lambda: self._revisitor.recovered(devices))
        if self.name:  # what this host keeps, for runs of other hosts; theirs is applied there
            devices = await in_thread(lambda: self._kept(devices))
        self._devices |= {device.name: device for device in devices}
        return [self._with_queue(device) for device in devices]

    async def attach(self, run_id: str, epoch: int) -> Attached:
        """Say what is here of a run. What an earlier epoch left is held back for `submit`.

        Raises:
            PlanError: A later epoch of the run was here.
            StoreError: Its outbox can't be used.
        """
        run = await in_thread(lambda: self._opened(run_id, epoch))
        with self._lock:
            mine = [i for i in self._jobs if (i.run_id, i.epoch) == (run_id, epoch)]
            others = [(j.device, j.run_id) for j in self._jobs.values() if j.run_id != run_id]
        return Attached(
            self._runs.boot_id,
            tuple(dict.fromkeys([*mine, *run.outbox.finished()])),
            tuple(sorted(set(others))),
            run.outbox.damaged,
        )

    async def submit(self, jobs: Sequence[DeviceJob], boot_id: str = "") -> None:
        """Queue jobs; see `farm.protocols.Site`.

        Raises:
            PlanError: A job names a device that no inventory of this site had; none is queued.
            SiteLost: They were meant for an earlier agent of this site.
            StoreError: Nothing could be kept of them.
        """
        if boot_id not in ("", self._runs.boot_id):
            raise SiteLost(f"the agent of site {self.name or 'local'} was started anew")
        unknown = sorted({job.device for job in jobs} - set(self._devices))
        if unknown:
            raise PlanError(
                f"site {self.name or 'local'} has no device {', '.join(unknown)}; it knows"
                f" {', '.join(sorted(self._devices)) or 'none'}"
            )
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_controllers())
        for run_id, epoch in dict.fromkeys((job.run_id, job.epoch) for job in jobs):
            run = await in_thread(partial(self._opened, run_id, epoch))
            run.heartbeat = Deadline(self._grace_s)
            here = set(run.outbox.finished())
            for job in [job for job in jobs if (job.run_id, job.epoch) == (run_id, epoch)]:
                with self._lock:
                    known = job.attempt_id in self._jobs
                if known or job.attempt_id in here:
                    continue  # its controller did not hear our answer
                if epoch == 1 or not await in_thread(partial(self._adopt, job, run)):
                    self._start(job)

    async def cancel(self, run_id: str, job_ids: Sequence[str]) -> None:
        """End jobs of a run, running or queued."""
        self._cancel(
            lambda job: job.run_id == run_id and job.job_id in job_ids, Interrupted("cancelled")
        )

    async def poll(self, run_id: str, after_seq: int, linger_s: float, boot_id: str = "") -> Polled:
        """Wait for events of a run; its controller's heartbeat.

        Numbers that another agent gave acknowledge nothing: the answer says so by its boot id.
        """
        run = self._runs.get(run_id)
        if run is None:
            run = await in_thread(lambda: self._runs.open(run_id))
        if boot_id not in ("", self._runs.boot_id):
            return Polled(self._runs.boot_id, ())
        run.heartbeat = Deadline(self._grace_s + linger_s)
        if after_seq:
            await in_thread(partial(run.outbox.after, after_seq))
        events = await run.outbox.wait(after_seq, linger_s)
        run.heartbeat = Deadline(self._grace_s)
        return Polled(self._runs.boot_id, tuple(events))

    async def detach(self, run_id: str) -> None:
        """End what is left of a run that is over, and forget what was kept for it."""
        self._cancel(lambda job: job.run_id == run_id, Interrupted("its run ended"))
        await in_thread(lambda: self._runs.forget(run_id))

    async def ensure(
        self, refs: Sequence[ObjectRef], source: str, progress: ByteProgress | None = None
    ) -> tuple[str, ...]:
        """Make objects of another FARM_HOME of this host present in the store.

        Raises:
            StoreError: `source` doesn't have one, or the disk is full.
        """
        await in_thread(lambda: bring_objects(refs, self._context.store, Path(source)))
        return ()

    async def collect(self, refs: Sequence[ObjectRef]) -> tuple[str, ...]:
        """Nothing to do: the controller is on this host."""
        return ()

    async def close(self) -> None:
        """Cancel what runs, clean the devices that answer, and end."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._revisitor.close()
        self._cancel(lambda _job: True, Interrupted("farm was stopped"))
        limit = Deadline(CLOSE_S)
        await in_thread(lambda: self._join(limit))
        await in_thread(self._runs.close)

    def _opened(self, run_id: str, epoch: int) -> AttachedRun:
        run = self._runs.open(run_id)
        if epoch < run.epoch:
            raise PlanError(f"run {run_id} was resumed; this controller is not its last")
        if epoch > run.epoch:
            run.epoch = epoch
            run.outbox.supersede(epoch)
        return run

    def _adopt(self, job: DeviceJob, run: AttachedRun) -> bool:
        """Go on with, or deliver, what an earlier epoch of the run had from the same work."""
        work = _work(job)
        with self._lock:
            earlier = [
                one
                for one in self._jobs.values()
                if (one.run_id, one.device) == (job.run_id, job.device) and one.epoch < job.epoch
            ]
            same = next((one for one in earlier if _work(one) == work), None)
            if same is not None:
                del self._jobs[same.attempt_id]
                self._jobs[job.attempt_id] = job
                self._adopted |= {
                    old: job.attempt_id
                    for old, now in [*self._adopted.items(), (same.attempt_id, None)]
                    if now in (None, same.attempt_id)
                }
        if same is not None:
            run.outbox.append(JobStarted(job.attempt_id, job.device, utc_now()))
            return True
        if earlier:  # nobody waits for those any more, and this one needs their device
            ids = {one.job_id for one in earlier}
            self._cancel(
                lambda j: j.run_id == job.run_id and j.epoch < job.epoch and j.job_id in ids,
                Interrupted("its run was resumed"),
            )
        return run.outbox.adopt(job.attempt_id, work)

    def _start(self, job: DeviceJob) -> None:
        with self._lock:
            self._jobs[job.attempt_id] = job
        self._session(job.device).submit(job)

    def _kept(self, devices: Sequence[Device]) -> list[Device]:
        """Devices with this host's quarantines; without its book none is known to be fit."""
        try:
            return [*HealthBook(quarantine_file(self._context.home)).apply(devices)]
        except StoreError as error:
            return [device.marked("unfit", error.message) for device in devices]

    def _with_queue(self, device: Device) -> Device:
        session = self._sessions.get(device.name)
        return device if session is None else replace(device, queue=device.queue + session.queue)

    def _session(self, name: str) -> DeviceSession:
        entry = self._devices[name].entry
        session = self._sessions.get(name)
        # A busy session keeps the entry it started with.
        if session is None or (session.entry != entry and not session.busy):
            if session is not None:
                session.close()
            session = DeviceSession(entry, self._context, self._emit)
            self._sessions[name] = session
        return session

    def _emit(self, event: SiteEvent) -> None:
        """Take an event of a session, from its thread."""
        if not isinstance(event, JobEvent):
            self._runs.tell_all(event)
            return
        with self._lock:
            attempt = self._adopted.get(event.attempt_id, event.attempt_id)
            job = self._jobs.get(attempt)
        if attempt != event.attempt_id:
            event = replace(event, attempt_id=attempt)
        ended = isinstance(event, JobFinished)
        # A damaged transfer comes from a device that answers. It is reported before the job's end,
        # so that no other job is sent to the device in between.
        if isinstance(event, JobFinished) and isinstance(event.error, _LOST):
            self._revisitor.lost(self._devices[event.device], event.error.message)
        run = self._runs.get(attempt.run_id)
        if run is not None:
            run.outbox.append(event, _work(job) if ended and job is not None else "")
        if ended:  # after it is kept: somewhere it is at any moment
            with self._lock:
                self._jobs.pop(attempt, None)
                self._adopted = {o: n for o, n in self._adopted.items() if n != attempt}

    def _cancel(self, which: Callable[[DeviceJob], bool], error: FarmError) -> None:
        for session in list(self._sessions.values()):  # `_adopt` comes from another thread
            session.cancel(which, error)

    def _join(self, limit: Deadline) -> None:
        for name, session in self._sessions.items():
            if not session.join(limit.remaining_s):
                log.warning("%s: still busy, left behind", name)
                session.abandon(Interrupted("farm was stopped"))

    async def _watch_controllers(self) -> None:
        """End the jobs of controllers that are gone; their results stay for a resume."""
        while True:
            await asyncio.sleep(min(1.0, self._grace_s / 4))
            for run_id in self._runs.gone():
                with self._lock:
                    left = [job for job in self._jobs.values() if job.run_id == run_id]
                if left:
                    text = f"no controller asked for {self._grace_s:.0f} s"
                    log.warning("run %s: %s: its jobs are ended", run_id, text)
                    self._cancel(partial(_is_of, run_id), Interrupted(text))


def _is_of(run_id: str, job: DeviceJob) -> bool:
    return job.run_id == run_id


def _work(job: DeviceJob) -> str:
    """Digest of what a job does, whichever attempt it is."""
    return digest(replace(job, attempt=0, epoch=0))
