"""Limits of what a lab device may use of this machine: control groups, version 1 or 2."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
_REMOVE_S = 10.0
_UNIFIED = (_ROOT / "cgroup.controllers").exists()
_DISKS = "io" if _UNIFIED else "blkio"


class Bounds:
    """Control groups of one device, made when a first limit is set.

    Args:
        name: Name of the groups.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def memory(self, size_bytes: int, pids: Iterable[int]) -> None:
        """Limit the memory of these processes and of all that they start from now on."""
        file = "memory.max" if _UNIFIED else "memory.limit_in_bytes"
        self._limit("memory", {file: str(size_bytes)}, pids)

    def processes(self, count: int, pids: Iterable[int]) -> None:
        """Limit the number of processes and threads."""
        self._limit("pids", {"pids.max": str(count)}, pids)

    def cpu(self, cores: float, pids: Iterable[int]) -> None:
        """Limit CPU time to so many cores, without any change of clocks."""
        quota = int(cores * _PERIOD_US)
        if _UNIFIED:
            files = {"cpu.max": f"{quota} {_PERIOD_US}"}
        else:
            files = {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(quota)}
        self._limit("cpu", files, pids)

    def reads(self, rate_bytes_s: int, disk: Path, pids: Iterable[int]) -> None:
        """Limit how fast a file system's own block device is read."""
        device = disk.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        if _UNIFIED:
            files = {"io.max": f"{number} rbps={rate_bytes_s}"}
        else:
            files = {"blkio.throttle.read_bps_device": f"{number} {rate_bytes_s}"}
        self._limit(_DISKS, files, pids)

    def remove(self) -> None:
        """Remove the groups; whatever still lives in them moves up."""
        deadline = time.monotonic() + _REMOVE_S
        for folder in {self._folder(name) for name in ("memory", "pids", "cpu", _DISKS)}:
            while folder.is_dir():
                _move(folder.parent, map(int, (folder / "cgroup.procs").read_text().split()))
                try:
                    folder.rmdir()
                except OSError as error:
                    # What a process starts after the list was read is born in the group.
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise

    def _limit(self, controller: str, files: dict[str, str], pids: Iterable[int]) -> None:
        folder = self._folder(controller)
        if _UNIFIED:
            (_ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
        folder.mkdir(exist_ok=True)
        for name, value in files.items():
            (folder / name).write_text(value)
        _move(folder, pids)

    def _folder(self, controller: str) -> Path:
        return (_ROOT if _UNIFIED else _ROOT / controller) / self._name


def _move(folder: Path, pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (folder / "cgroup.procs").write_text(str(pid))
