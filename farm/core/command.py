"""A command for a device and what came of it. Knows no transport."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Command:
    """One program start on a device.

    `argv` is never a shell string: a transport that needs a shell quotes each word.
    """

    argv: tuple[str, ...]
    #: Total deadline in seconds, from start to the last byte of output.
    timeout_s: float = 30.0
    #: Written to the program's standard input, which is then closed.
    stdin: bytes = b""
    #: Extra environment variables.
    env: tuple[tuple[str, str], ...] = ()
    #: Output beyond this many bytes (stdout and stderr each) ends the command with BadOutput.
    max_output_bytes: int = field(default=8 << 20)


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended. A nonzero exit code is data, not an exception."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    #: Wall time seen from the host, seconds.
    duration_s: float

    @property
    def ok(self) -> bool:
        """True when the exit code is 0."""
        return self.exit_code == 0

    @property
    def text(self) -> str:
        """Standard output as text; undecodable bytes are replaced."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """Standard error, or standard output where that is empty, stripped."""
        return (self.stderr or self.stdout).decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class FileStat:
    """A file on a device."""

    size_bytes: int
    mode: int
    mtime_s: int
