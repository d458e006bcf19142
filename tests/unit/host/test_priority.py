"""A worker that another program started behind others takes its priority back, or says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

_START = """
import os, threading
from farm.host.priority import niceness, usual_priority
os.nice(7)
go, said = threading.Event(), []
other = threading.Thread(target=lambda: (go.wait(), said.append(niceness())))
other.start()
if {drop}:
    os.setresuid(65534, 65534, 65534)
usual_priority()
go.set()
other.join()
print(niceness(), *said)
"""


@pytest.mark.parametrize(("drop", "left"), [(False, "0 0"), (True, "7 7")])
def test_niceness_is_undone_in_every_thread_or_stays_visible(drop: bool, left: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _START.format(drop=drop)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == left
