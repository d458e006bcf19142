"""Keys of the terminal while a view is drawn on it: one at a time, without echo, in a thread.

Only a terminal in whose foreground this process is gives keys: reading it from the background
would stop the process.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from typing import TextIO

#: Longest time until a change of the foreground, or the end, is noticed, seconds.
_LOOK_S = 0.5
_NAMES = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down",
    "\x1b": "escape", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace",
}  # fmt: skip
_KEY = re.compile(r"\x1b(?:\[[0-9;]*[~A-Za-z]|O[A-Za-z])?|.", re.DOTALL)


def keys_of(text: str) -> list[str]:
    """Names of the keys that a terminal sent; those without a name are left out."""
    found = (_NAMES.get(key, key) for key in _KEY.findall(text))
    return [key for key in found if key.isprintable()]


class Keys:
    """Passes keys on until it is closed, and leaves the terminal as it was.

    Args:
        stream: The terminal.
        press: Takes each key, in a thread of its own.
    """

    def __init__(self, stream: TextIO, press: Callable[[str], None]) -> None:
        self._terminal = stream.fileno()
        self._press = press
        self._before = termios.tcgetattr(self._terminal)
        self._ends, self._end = os.pipe()
        self._thread = threading.Thread(target=self._read, name="farm-keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        os.close(self._end)
        self._thread.join()
        os.close(self._ends)
        if self._in_front():
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)

    def _in_front(self) -> bool:
        with contextlib.suppress(OSError):  # the terminal was closed
            return os.tcgetpgrp(self._terminal) == os.getpgrp()
        return False

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for content in self._contents():
            for key in keys_of(decoder.decode(content)):
                self._press(key)

    def _contents(self) -> Iterator[bytes]:
        while True:
            front = self._in_front()
            with contextlib.suppress(termios.error):
                # Whoever had the foreground meanwhile may have set the terminal otherwise.
                if front and termios.tcgetattr(self._terminal)[3] & termios.ICANON:
                    tty.setcbreak(self._terminal, termios.TCSADRAIN)
            wanted = [self._ends, *([self._terminal] if front else [])]
            ready = select.select(wanted, [], [], _LOOK_S)[0]
            if self._ends in ready:
                return
            if self._terminal in ready and self._in_front():
                try:
                    content = os.read(self._terminal, 256)
                except OSError:
                    return
                if not content:
                    return
                yield content


def keys(stream: TextIO | None, press: Callable[[str], None]) -> Keys | None:
    """Begin to read keys; None where `stream` is no terminal."""
    try:
        return Keys(stream, press) if stream is not None and stream.isatty() else None
    except (OSError, termios.error, ValueError):  # closed, or a terminal in name only
        return None
