"""What `close` of a transport means, for all of them: nothing new begins, what waits ends.

Knows neither what is ended nor how.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from farm.core.errors import ConnectError, DeviceLost


class Gate:
    """Open until it is closed, from any thread; it ends what was admitted by then.

    Args:
        device: Name of the device, for errors.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        # Protects both fields: close() comes from another thread.
        self._lock = threading.Lock()
        self._closed = False
        self._ends: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def check(self) -> None:
        """Refuse work after `close`.

        Raises:
            DeviceLost: `close` was called.
        """
        if self._closed:
            raise self.lost()

    def admit(self, end: Callable[[], None], *, late: bool = False) -> None:
        """Remember how to end something that is about to wait.

        Args:
            end: Called by `close`; must not block nor raise.
            late: It may begin after `close` too, to tidy up.

        Raises:
            DeviceLost: `close` was called.
        """
        with self._lock:
            if self._closed and not late:
                raise self.lost()
            self._ends.append(end)

    def release(self, end: Callable[[], None], free: Callable[[], None]) -> None:
        """Forget something that ended, and give back what it used: `end` can't meet `free`."""
        with self._lock:
            if end in self._ends:
                self._ends.remove(end)
            free()

    def close(self, before: Callable[[], None] | None = None) -> None:
        """Admit nothing more and end what waits. May be repeated.

        Args:
            before: Called once, when nothing new is admitted and nothing is ended yet.
        """
        with self._lock:
            already, self._closed = self._closed, True
        if before is not None and not already:
            before()
        with self._lock:
            for end in self._ends:
                end()

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Raise `lost` in place of the error of a connection that `close` ended."""
        try:
            yield
        except (ConnectError, DeviceLost) as error:
            if self._closed:
                raise self.lost() from error
            raise

    def lost(self) -> DeviceLost:
        """The error of every call that `close` ended."""
        return DeviceLost(f"the connection to {self._device} was closed", device=self._device)
