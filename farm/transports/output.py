"""What a running program prints: collected up to a bound, streamed, and how far a copy is.

Knows no connection; shared by all transports.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from farm.core.command import Command, Completed
from farm.core.errors import RAW_BYTES, BadOutput
from farm.protocols import ByteProgress

#: Least time between two reports of progress.
PROGRESS_PERIOD_S = 0.2


class Output:
    """Standard output and error of one command, each up to `max_output_bytes`."""

    def __init__(
        self, command: Command, device: str, on_stdout: Callable[[bytes], None] | None = None
    ) -> None:
        self._command = command
        self._device = device
        self._on_stdout = on_stdout
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._started = time.monotonic()

    def add_stdout(self, piece: bytes) -> None:
        """Take a piece of standard output.

        Raises:
            BadOutput: It is more than the command may print.
        """
        self._stdout += piece
        self._check(self._stdout, "standard output")
        if self._on_stdout is not None and piece:
            self._on_stdout(piece)

    def add_stderr(self, piece: bytes) -> None:
        """Take a piece of standard error.

        Raises:
            BadOutput: It is more than the command may print.
        """
        self._stderr += piece
        self._check(self._stderr, "standard error")

    @property
    def stderr(self) -> bytes:
        """Standard error so far."""
        return bytes(self._stderr)

    def completed(self, exit_code: int) -> Completed:
        """Return the result of the program, which ended with this code."""
        return Completed(
            exit_code=exit_code,
            stdout=bytes(self._stdout),
            stderr=bytes(self._stderr),
            duration_s=time.monotonic() - self._started,
        )

    def _check(self, buffer: bytearray, what: str) -> None:
        limit = self._command.max_output_bytes
        if len(buffer) > limit:
            raise BadOutput(
                f"'{self._command.argv[0]}' on {self._device} printed more than {limit} bytes "
                f"of {what}",
                device=self._device,
                raw=bytes(buffer[:RAW_BYTES]).decode("utf-8", "replace"),
            )


def ignore(_: bytes) -> None:
    """Drop output that nobody reads."""


class Meter:
    """Bytes done of a copy, reported some times a second and once at the end."""

    def __init__(self, progress: ByteProgress | None, done: int = 0) -> None:
        self._progress = progress
        self._reported_at = 0.0
        #: Bytes done so far.
        self.done = done

    def add(self, count: int) -> None:
        """Count bytes that went through."""
        self.done += count
        if self._progress is None:
            return
        now = time.monotonic()
        if now - self._reported_at >= PROGRESS_PERIOD_S:
            self._reported_at = now
            self._progress(self.done)

    def finish(self) -> None:
        """Report the final count."""
        if self._progress is not None:
            self._progress(self.done)
