"""Events of a site for one run: numbered, kept until acknowledged, waited for without a thread."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

from farm.core.events import (
    JobEvent,
    JobFinished,
    JobProgress,
    JobStarted,
    Numbered,
    SiteEvent,
)
from farm.core.runtime import AttemptId
from farm.site.agent.outbox_file import OutboxFile

#: Beyond this many unacknowledged events, old progress is dropped; nothing else ever is.
PROGRESS_KEPT = 2000


class Outbox:
    """Filled by session threads, emptied by the controller of one run.

    Numbers grow by one while the agent lives; what a controller acknowledges to another agent than
    this (by its boot id) never comes here.

    Args:
        path: Where everything but progress is kept for the agent's successor; None for an agent
            that ends with its controller.
        run_id: Whose events they are.

    Raises:
        StoreError: The file can't be used.
    """

    def __init__(self, path: Path | None = None, run_id: str = "") -> None:
        # Protects numbers and the file, which takes its time; taken before the other lock.
        self._writing = threading.Lock()
        # Protects what polls look at: sessions append from their own threads.
        self._lock = threading.Lock()
        self._file = None if path is None else OutboxFile(path, run_id)
        kept = [] if self._file is None else self._file.load()
        self._events = [item for item, _ in kept]
        #: What each finished job worked on, by number of its event.
        self._works = {item.seq: work for item, work in kept}
        self._last = 0 if self._file is None else self._file.last()
        #: Jobs that ended with a result for an earlier controller of this run; not delivered.
        self._ended: list[Numbered] = []
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @property
    def damaged(self) -> tuple[str, ...]:
        """What could not be read or kept, in words."""
        return () if self._file is None else tuple(self._file.damaged)

    def append(self, event: SiteEvent, work: str = "") -> None:
        """Number and keep an event, and wake all waiting polls. Any thread may call this."""
        with self._writing:
            self._append(event, work)
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for loop, waiter in waiters:
            loop.call_soon_threadsafe(waiter.set)

    def after(self, seq: int) -> list[Numbered]:
        """Forget events up to `seq` and return the later ones."""
        with self._lock:
            gone = [item.seq for item in self._events if item.seq <= seq]
            if gone:
                self._events = [item for item in self._events if item.seq > seq]
            found = list(self._events)
        if gone:
            with self._writing:
                self._forget_work(gone)
        return found

    def finished(self) -> list[AttemptId]:
        """Return the attempts that ended, and nobody acknowledged."""
        with self._lock:
            events = [item.event for item in self._events]
        return [event.attempt_id for event in events if isinstance(event, JobFinished)]

    def supersede(self, epoch: int) -> None:
        """Hold back what came of earlier epochs: `adopt` gives the results that are wanted."""
        with self._writing, self._lock:
            old = [item for item in self._events if _is_before(item.event, epoch)]
            if not old:
                return
            self._events = [item for item in self._events if not _is_before(item.event, epoch)]
            results = [item for item in old if getattr(item.event, "result", None) is not None]
            self._ended += results
            kept = {item.seq for item in results}
            self._forget_work([item.seq for item in old if item.seq not in kept])

    def adopt(self, attempt: AttemptId, work: str) -> bool:
        """Deliver the result that the same work had in an earlier epoch, as this attempt's."""
        with self._writing:
            for item in self._ended:
                if self._works.get(item.seq) != work or not isinstance(item.event, JobFinished):
                    continue
                started = JobStarted(attempt, item.event.device, item.event.at)
                self._append(started, "")
                self._append(replace(item.event, attempt_id=attempt), work)
                self._ended.remove(item)
                self._forget_work([item.seq])
                return True
        return False

    async def wait(self, after_seq: int, linger_s: float) -> list[Numbered]:
        """Return events after `after_seq`, waiting up to `linger_s` for the first."""
        loop = asyncio.get_running_loop()
        end = loop.time() + linger_s
        while True:
            waiter = asyncio.Event()
            with self._lock:
                self._waiters.append((loop, waiter))
            found = self.after(after_seq)
            try:
                if found or (left := end - loop.time()) <= 0:
                    return found
                async with asyncio.timeout(left):
                    await waiter.wait()
            except TimeoutError:
                return self.after(after_seq)
            finally:
                self._forget(waiter)

    def close(self, *, forget: bool = False) -> None:
        """Leave the file to the next agent, or remove it."""
        with self._writing:
            if self._file is not None and forget:
                self._file.delete()
            elif self._file is not None:
                self._file.close()
            self._file = None

    def _append(self, event: SiteEvent, work: str) -> None:
        self._last += 1
        item = Numbered(self._last, event)
        if self._file is not None and not isinstance(event, JobProgress):
            self._file.add(item, work)
            if work:
                self._works[item.seq] = work
        with self._lock:
            self._events.append(item)
            if len(self._events) > PROGRESS_KEPT and isinstance(event, JobProgress):
                self._drop_oldest_progress()

    def _forget_work(self, seqs: list[int]) -> None:
        for seq in seqs:
            self._works.pop(seq, None)
        if self._file is not None:
            self._file.remove(seqs)

    def _forget(self, waiter: asyncio.Event) -> None:
        with self._lock:
            self._waiters = [item for item in self._waiters if item[1] is not waiter]

    def _drop_oldest_progress(self) -> None:
        for index, item in enumerate(self._events):
            if isinstance(item.event, JobProgress):
                del self._events[index]
                return


def _is_before(event: SiteEvent, epoch: int) -> bool:
    return isinstance(event, JobEvent) and event.attempt_id.epoch < epoch
