"""The standard streams as a command finds them: closed, or unable to write every character."""

from __future__ import annotations

import io
import os
import sys


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
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as we
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def replace_unwritable() -> None:
    """Let streams of another encoding than UTF-8 write `?` for what they can't write.

    A report that was computed must not be lost to a check mark.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="replace")
