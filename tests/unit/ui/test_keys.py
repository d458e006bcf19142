from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from farm.ui.keys import keys, keys_of
from tests.pace import slack

ROOT = Path(__file__).resolve().parents[3]
#: Reads keys of its terminal until `q`, and says which, and whether the terminal is as before.
READER = """
import sys, termios, threading
from farm.ui.keys import keys
ended, seen = threading.Event(), []
def press(key):
    seen.append(key)
    if key == "q":
        ended.set()
before = termios.tcgetattr(0)
reader = keys(sys.stdin, press)
print("ready", flush=True)
ended.wait()
reader.close()
print(seen, termios.tcgetattr(0) == before, flush=True)
"""


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("s/x", ["s", "/", "x"]),
        ("\x1b[A\x1bOB\x1b", ["up", "down", "escape"]),
        ("\x1b[15~l\r\x7f\x01", ["l", "enter", "backspace"]),
    ],
)
def test_keys_have_names(sent: str, found: list[str]) -> None:
    assert keys_of(sent) == found


def test_no_terminal_gives_no_keys() -> None:
    assert keys(None, print) is None
    assert keys(io.StringIO(), print) is None


def test_a_terminal_gives_keys_and_is_left_as_it_was() -> None:
    ours, theirs = pty.openpty()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER], cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=_in_front,
    )  # fmt: skip
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    os.write(ours, b"s\x1b[Bq")
    said, _ = reader.communicate(timeout=30 * slack())
    assert said == "['s', 'down', 'q'] True\n"
    os.close(ours)
    os.close(theirs)


def _in_front() -> None:
    """Make the terminal that of the new session."""
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
