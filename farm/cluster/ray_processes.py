"""The processes of a Ray that a process of ours started."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil

#: Of `prctl`, see linux/prctl.h.
_SET_CHILD_SUBREAPER = 36
#: Within it a process stops, seconds.
_STOP_S = 0.02
#: Longest time for killed processes to be gone, seconds.
_END_S = 5.0


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Become the parent of every process whose own parent ends while the block runs.

    Ray's agents write over their environment, so no mark of a run is found in it: only their
    parent tells whose they are. A raylet that ends before its agents would take that away.
    """
    if sys.platform != "linux":  # no other system has it: there a raylet's agents end by themselves
        yield
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    try:
        yield
    finally:
        prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def stopped_ray_of(pid: int) -> list[psutil.Process]:
    """Stop what Ray started below a process that is `adopting`, and return it, to be ended.

    They are stopped first: that process would see one end, and end with an error of Ray's own. It
    is looked again until there is no other: one starts another before it stops.
    """
    spec = find_spec("ray")
    folder = str(Path(spec.origin).parent) if spec is not None and spec.origin else "ray/"
    stopped: list[psutil.Process] = []
    while new := [process for process in _ray_of(pid, folder) if process not in stopped]:
        for process in new:
            with contextlib.suppress(psutil.Error):
                process.suspend()
        stopped += new
        time.sleep(_STOP_S)
    return stopped


def end(processes: list[psutil.Process]) -> None:
    """End processes; returns when they are gone, after 5 s at the latest."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=_END_S)


def _ray_of(pid: int, folder: str) -> list[psutil.Process]:
    """Ray's processes below one, and what they started; one that ended has no command line."""
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.Error):
                if any(word.startswith((folder, "ray::")) for word in child.cmdline()):
                    found += [*child.children(recursive=True), child]
    return found
