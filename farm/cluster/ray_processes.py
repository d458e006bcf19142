"""The processes of a Ray that a process of ours started."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from pathlib import Path

import psutil


def stopped_ray_of(pid: int) -> list[psutil.Process]:
    """Stop what Ray started below a process, and return it, to be ended.

    Ray's agents write over their environment, so no mark of a run is found in it: only their
    parent tells whose they are. Each is stopped before its children are listed: none starts
    another unseen, which would outlive it.
    """
    spec = find_spec("ray")
    folder = str(Path(spec.origin).parent) if spec is not None and spec.origin else "ray/"
    found: list[psutil.Process] = []
    for child in _children(pid):
        with contextlib.suppress(psutil.Error):
            if any(word.startswith(folder) for word in child.cmdline()):
                found += _stopped(child)
    return found


def end(processes: list[psutil.Process]) -> None:
    """End processes; returns when they are gone, after 5 s at the latest."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5.0)


def _stopped(process: psutil.Process) -> list[psutil.Process]:
    process.suspend()
    below = [process]
    for child in _children(process.pid):
        with contextlib.suppress(psutil.Error):
            below += _stopped(child)
    return below


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children()
    return []
