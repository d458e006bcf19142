"""A transport that knows when its device last answered, so that slow isn't taken for silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from farm.core.command import Command, Completed, FileStat
from farm.protocols import ByteProgress, Transport

T = TypeVar("T")


class AnsweredTransport:
    """Passes every call on, and notes when one was answered.

    Args:
        inner: The transport that does the work.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.name = inner.name
        #: When a call was last answered, on the monotonic clock; 0.0 before the first one.
        self.answered_at = 0.0

    def run(self, command: Command, on_stdout: Callable[[bytes], None] | None = None) -> Completed:
        """See `farm.protocols.Transport.run`."""
        return self._noted(self._inner.run(command, on_stdout))

    def push(
        self,
        local: Path,
        remote: str,
        *,
        mode: int = 0o600,
        offset: int = 0,
        progress: ByteProgress | None = None,
        stall_s: float = 15.0,
    ) -> None:
        """See `farm.protocols.Transport.push`."""

        def moved(done: int) -> None:
            self._noted(None)
            if progress is not None:
                progress(done)

        self._inner.push(local, remote, mode=mode, offset=offset, progress=moved, stall_s=stall_s)

    def pull(
        self,
        remote: str,
        local: Path,
        *,
        max_bytes: int,
        progress: ByteProgress | None = None,
        stall_s: float = 15.0,
    ) -> None:
        """See `farm.protocols.Transport.pull`."""
        self._inner.pull(remote, local, max_bytes=max_bytes, progress=progress, stall_s=stall_s)
        self._noted(None)

    def stat(self, remote: str) -> FileStat | None:
        """See `farm.protocols.Transport.stat`."""
        return self._noted(self._inner.stat(remote))

    def default_root(self) -> str:
        """See `farm.protocols.Transport.default_root`."""
        return self._noted(self._inner.default_root())

    def close(self) -> None:
        """See `farm.protocols.Transport.close`."""
        self._inner.close()

    def _noted(self, answer: T) -> T:
        self.answered_at = time.monotonic()
        return answer
