"""The processes of a Ray that a process of ours started."""

from __future__ import annotations

import contextlib
import os
from importlib.util import find_spec
from pathlib import Path

import psutil


def stopped_ray_of(pid: int) -> list[psutil.Process]:
    """Stop what Ray started below a process, and return it, to be ended.

    Ray's agents may write over their environment, so no mark of a run is found in it: then only
    their parent tells whose they are. Each is stopped before its children are listed: none starts
    another unseen, which would outlive it. Of one whose parent ended already the token tells.
    """
    spec = find_spec("ray")
    folder = str(Path(spec.origin).parent) if spec is not None and spec.origin else "ray/"
    found: list[psutil.Process] = []
    for child in _children(pid):
        with contextlib.suppress(psutil.Error):
            if _is_of_ray(child, folder):
                found += _stopped(child)
    return [*found, *_orphans(folder)]


def _orphans(folder: str) -> list[psutil.Process]:
    """Processes of Ray that have this run's own token, which no other run has."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    found: list[psutil.Process] = []
    for process in psutil.process_iter() if token else ():
        with contextlib.suppress(psutil.Error):
            if _is_of_ray(process, folder) and process.environ().get("RAY_AUTH_TOKEN") == token:
                found.append(process)
    return found


def _is_of_ray(process: psutil.Process, folder: str) -> bool:
    return any(word.startswith((folder, "ray::")) for word in process.cmdline())


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
