"""Limits of this process, by control groups (version 1 or 2) and otherwise. Not what for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Version 1 writes "no limit" as the largest page-aligned number.
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Limits:
    """The tightest limit of each kind over this process's group and all groups above it."""

    memory_bytes: int | None
    """None: unlimited, or not a system with control groups."""
    cpus: float | None
    """Processors' worth of time per period; None: unlimited."""
    tasks: int | None = None
    """Processes and threads together; None: unlimited."""


def read_limits(root: Path = Path("/")) -> Limits:
    """Read the limits of this process.

    Args:
        root: Where `proc` and `sys` are; another folder in tests.
    """
    try:
        text = (root / "proc/self/cgroup").read_text()
    except OSError:
        return Limits(None, None)
    mount = root / "sys/fs/cgroup"
    memory: list[int] = []
    cpus: list[float] = []
    tasks: list[int] = []
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(mount, path):
                memory += _numbers(folder / "memory.max")[:1]
                cpus += _quota(_numbers(folder / "cpu.max"))
                tasks += _numbers(folder / "pids.max")
        if "memory" in controllers.split(","):
            for folder in _upwards(mount / "memory", path):
                memory += _numbers(folder / "memory.limit_in_bytes")
        if "cpu" in controllers.split(","):
            for folder in _upwards(mount / "cpu", path):
                quota = _numbers(folder / "cpu.cfs_quota_us")
                cpus += _quota([*quota, *_numbers(folder / "cpu.cfs_period_us")])
        if "pids" in controllers.split(","):
            for folder in _upwards(mount / "pids", path):
                tasks += _numbers(folder / "pids.max")
    limited = [value for value in memory if value < _UNLIMITED_BYTES]
    return Limits(min(limited, default=None), min(cpus, default=None), min(tasks, default=None))


def usable_cpus() -> int:
    """Processors that this process may keep busy: of its affinity or cpuset, within its quota."""
    asked = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = len(asked(0)) if asked else os.cpu_count() or 1
    quota = read_limits().cpus
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield a group's folder and those above it; in a container only the mount may exist."""
    folder = mount / path.lstrip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _numbers(path: Path) -> list[int]:
    """Read the numbers of a file; none when it is missing or says `max`."""
    try:
        words = path.read_text().split()
    except OSError:
        return []
    return [int(word) for word in words] if all(w.lstrip("-").isdigit() for w in words) else []


def _quota(quota_and_period: list[int]) -> list[float]:
    if len(quota_and_period) != 2 or quota_and_period[0] <= 0:
        return []
    return [quota_and_period[0] / quota_and_period[1]]
