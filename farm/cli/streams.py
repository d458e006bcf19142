"""Standard output and error that outlive their reader: a run doesn't end because `head` did."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

#: A reader that went away, or a terminal that was closed: nobody misses what is not written.
_GONE = (errno.EPIPE, errno.EIO)
#: Sizes of a terminal below which nothing can be read; some programs set 0 where there is none.
_LEAST = {"COLUMNS": 20, "LINES": 3}


class Output(io.TextIOWrapper):
    """A text stream whose failed writes are kept as `lost` and go nowhere from then on.

    Characters that its encoding doesn't have are written as escapes.
    """

    #: The first error of a write; None while everything arrived.
    lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write, or note that nothing can be written."""
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or note that nothing can be written."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    @property
    def failed(self) -> OSError | None:
        """Why somebody misses what was written; None also when they stopped reading."""
        return None if self.lost is None or self.lost.errno in _GONE else self.lost

    def _lose(self, error: OSError) -> None:
        if self.lost is None:
            self.lost = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def fill_closed() -> None:
    """Open the null device in place of closed standard streams.

    A service manager may close them. The next file that is opened would take their number, and
    whatever a library or a child writes to its standard output would land in that file.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, and the lower ones are filled by now.
            opened = os.open(os.devnull, flags)
            assert opened == number, f"{opened} was opened for {number}"
            os.set_inheritable(number, True)


def protect() -> None:
    """Put such streams in the place of standard output and error; closed ones write nowhere.

    A size of the terminal that can't be is forgotten: tables of no width would show nothing.
    """
    for name, least in _LEAST.items():
        if (told := os.environ.get(name, "")).isdigit() and int(told) < least:
            del os.environ[name]
    sys.stdout = _protected(sys.stdout)
    sys.stderr = _protected(sys.stderr)


def stdout_failed() -> OSError | None:
    """Write out what is left of standard output; returns why that failed, if somebody minds."""
    sys.stdout.flush()
    return sys.stdout.failed if isinstance(sys.stdout, Output) else None


def _protected(stream: TextIO | None) -> TextIO:
    if stream is None:  # started with the descriptor closed
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding, lines = stream.encoding, stream.line_buffering
    return Output(stream.detach(), encoding, "backslashreplace", line_buffering=lines)
