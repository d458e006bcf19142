"""Events of a site: numbered, kept until acknowledged, waited for without a thread."""

from __future__ import annotations

import asyncio
import threading

from farm.core.events import JobProgress, Numbered, SiteEvent

#: Beyond this many unacknowledged events, old progress is dropped; nothing else ever is.
PROGRESS_KEPT = 2000


class Outbox:
    """Filled by session threads, emptied by one controller."""

    def __init__(self) -> None:
        # Protects everything below: sessions append from their own threads.
        self._lock = threading.Lock()
        self._events: list[Numbered] = []
        self._last = 0
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def append(self, event: SiteEvent) -> None:
        """Number an event and wake all waiting polls. Any thread may call this."""
        with self._lock:
            self._last += 1
            self._events.append(Numbered(self._last, event))
            if len(self._events) > PROGRESS_KEPT and isinstance(event, JobProgress):
                self._drop_oldest_progress()
            waiters, self._waiters = self._waiters, []
        for loop, waiter in waiters:
            loop.call_soon_threadsafe(waiter.set)

    def after(self, seq: int) -> list[Numbered]:
        """Forget events up to `seq` and return the later ones."""
        with self._lock:
            self._events = [item for item in self._events if item.seq > seq]
            return list(self._events)

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

    def _forget(self, waiter: asyncio.Event) -> None:
        with self._lock:
            self._waiters = [item for item in self._waiters if item[1] is not waiter]

    def _drop_oldest_progress(self) -> None:
        for index, item in enumerate(self._events):
            if isinstance(item.event, JobProgress):
                del self._events[index]
                return
