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
from functools import partial
from pathlib import Path
from typing import TypeVar

import runners
from farm import transports
from farm.clock import Deadline
from farm.core.artifact import ObjectRef
from farm.core.device import Device, DeviceEntry
from farm.core.errors import (
    ConnectError,
    DeviceLost,
    FarmError,
    Interrupted,
    PlanError,
    TransportTimeout,
)
from farm.core.events import Handshake, JobFinished, Numbered, SiteEvent
from farm.core.runner import RunnerSpec
from farm.core.runtime import DeviceJob
from farm.host.source_tree import tree_sha256
from farm.paths import store_root
from farm.protocols import PROBE_LIMIT_S, OpenTransport, Runner
from farm.site.agent.discovery import Discover, discover_adb
from farm.site.agent.inventory import look
from farm.site.agent.outbox import Outbox
from farm.site.agent.revisit import Revisitor
from farm.site.agent.session import DeviceSession
from farm.site.context import Limits, SiteContext
from farm.store.bring import bring_objects
from farm.store.objects import ContentStore

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Errors after which a device counts as gone until it answers again.
_LOST = (ConnectError, DeviceLost, TransportTimeout)

PROTOCOL = 1
#: Without a poll for this long the controller counts as gone, seconds.
ORPHAN_GRACE_S = 60.0
#: `close` waits this long for sessions to clean their devices, seconds.
CLOSE_S = 3.3


class SiteAgent:
    """One host's devices.

    Args:
        home: FARM_HOME of this host.
        name: Name of the site; empty is the controller's own host.
        orphan_grace_s: Jobs are cancelled this long after the last poll.
        open_transport: Makes the transport of an entry.
        find_runner: Makes the runner of a job.
        discover: Entries of the attached adb devices.
        limits: Times that decide about lost devices.
    """

    def __init__(
        self,
        home: Path,
        *,
        name: str = "",
        orphan_grace_s: float = ORPHAN_GRACE_S,
        open_transport: OpenTransport = transports.open,
        find_runner: Callable[[RunnerSpec], Runner] = runners.find,
        discover: Discover = discover_adb,
        limits: Limits | None = None,
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
        self._outbox = Outbox()
        self._revisitor = Revisitor(self._context, self._outbox.append)
        self._devices: dict[str, Device] = {}
        self._sessions: dict[str, DeviceSession] = {}
        self._last_poll = Deadline(orphan_grace_s)
        self._watch: asyncio.Task[None] | None = None

    async def handshake(self) -> Handshake:
        """Say which farm this is."""
        tree = await in_thread(tree_sha256)
        return Handshake(PROTOCOL, tree, platform.python_version())

    async def inventory(
        self,
        entries: Sequence[DeviceEntry],
        *,
        adb_auto: bool,
        limit_s: float = PROBE_LIMIT_S,
        recover: bool = False,
    ) -> list[Device]:
        """Probe devices; see `farm.protocols.Site`."""
        discover = partial(self._discover, entries, self.name) if adb_auto else None
        devices = await in_thread(lambda: look(entries, discover, self._context, limit_s))
        if recover:
            devices = await in_thread(lambda: self._revisitor.recovered(devices))
        self._devices |= {device.name: device for device in devices}
        return devices

    async def submit(self, jobs: Sequence[DeviceJob]) -> None:
        """Queue jobs.

        Raises:
            PlanError: A job names a device that no inventory of this site had; none is queued.
        """
        unknown = sorted({job.device for job in jobs} - set(self._devices))
        if unknown:
            raise PlanError(
                f"site {self.name or 'local'} has no device {', '.join(unknown)}; it knows"
                f" {', '.join(sorted(self._devices)) or 'none'}"
            )
        self._last_poll = Deadline(self._grace_s)
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_controller())
        for job in jobs:
            self._session(job.device).submit(job)

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """End jobs, running or queued."""
        for job_id in job_ids:
            for session in self._sessions.values():
                session.cancel(job_id, Interrupted("cancelled"))

    async def poll(self, after_seq: int, linger_s: float) -> list[Numbered]:
        """Wait for events; the controller's heartbeat."""
        self._last_poll = Deadline(self._grace_s + linger_s)
        events = await self._outbox.wait(after_seq, linger_s)
        self._last_poll = Deadline(self._grace_s)
        return events

    async def ensure(self, refs: Sequence[ObjectRef], source: str) -> None:
        """Make objects present in the store.

        Raises:
            StoreError: `source` doesn't have one, or the disk is full.
        """
        await in_thread(lambda: bring_objects(refs, self._context.store, Path(source)))

    async def close(self) -> None:
        """Cancel what runs, clean the devices that answer, and end."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._revisitor.close()
        self._cancel_all(Interrupted("farm was stopped"))
        limit = Deadline(CLOSE_S)
        await in_thread(lambda: self._join(limit))

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
        # A damaged transfer comes from a device that answers. It is reported before the job's end,
        # so that no other job is sent to the device in between.
        if isinstance(event, JobFinished) and isinstance(event.error, _LOST):
            self._revisitor.lost(self._devices[event.device], event.error.message)
        self._outbox.append(event)

    def _cancel_all(self, error: FarmError) -> None:
        for session in self._sessions.values():
            session.cancel(None, error)

    def _join(self, limit: Deadline) -> None:
        for name, session in self._sessions.items():
            if not session.join(limit.remaining_s):
                log.warning("%s: still busy, left behind", name)
                session.abandon(Interrupted("farm was stopped"))

    async def _watch_controller(self) -> None:
        """End the jobs of a controller that is gone; their results stay for a resume."""
        while True:
            await asyncio.sleep(min(1.0, self._grace_s / 4))
            if self._last_poll.passed and any(s.busy for s in self._sessions.values()):
                log.warning("no controller for %.0f s: its jobs are ended", self._grace_s)
                self._cancel_all(Interrupted(f"no controller asked for {self._grace_s:.0f} s"))


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own; never in the default executor."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(value: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            loop.call_soon_threadsafe(deliver, None, error)
        else:
            loop.call_soon_threadsafe(deliver, value, None)

    threading.Thread(target=run, name="farm-site", daemon=True).start()
    return await future
