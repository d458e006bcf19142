"""Control group limits, read from made trees of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farm.host import limits
from farm.host.limits import Limits, read_limits, usable_cpus

GIB = 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_takes_the_tightest_of_all_levels(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice/session\n",
            "sys/fs/cgroup/user.slice/session/memory.max": "max\n",
            "sys/fs/cgroup/user.slice/session/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/user.slice/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
        },
    )
    assert read_limits(root) == Limits(memory_bytes=2 * GIB, cpus=1.5)


def test_version_1_knows_its_own_word_for_unlimited(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": (
                "6:pids:/box\n5:memory:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/\n"
            ),
            "sys/fs/cgroup/pids/box/pids.max": "120\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert read_limits(root) == Limits(memory_bytes=GIB, cpus=0.5, tasks=120)


def test_a_container_sees_only_the_mount_of_its_group(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/docker/1234\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/cpu.max": "200000 100000\n",
        },
    )
    assert read_limits(root) == Limits(memory_bytes=GIB, cpus=2.0)


@pytest.mark.parametrize("text", ["", "garbage\n", "\n"])
def test_files_without_numbers_are_no_limit(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": text})
    assert read_limits(root) == Limits(None, None)


def test_a_system_without_control_groups_is_unlimited(tmp_path: Path) -> None:
    assert read_limits(tmp_path) == Limits(None, None)


@pytest.mark.parametrize(("quota", "usable"), [(None, 3), (8.0, 3), (1.5, 2), (0.5, 1)])
def test_cpus_of_a_container_are_not_those_of_its_machine(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, usable: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 5, 9})
    monkeypatch.setattr(limits, "read_limits", lambda: Limits(None, quota))
    assert usable_cpus() == usable
