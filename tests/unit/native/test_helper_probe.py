"""probe: raw text of fixed files, nothing interpreted."""

from __future__ import annotations

import os
from pathlib import Path

from .conftest import Helper


def test_version_names_every_verb(helper: Helper) -> None:
    value = helper("version").value
    assert value["protocol"] == 1
    assert {"probe", "hash", "have", "commit", "assemble", "supervise", "poll"} <= set(
        value["verbs"]
    )


def test_probe_reads_this_machine(helper: Helper, tmp_path: Path) -> None:
    value = helper("probe", "--root", tmp_path, tmp_path, "/etc/hostname").value
    assert value["uname"]["machine"] == os.uname().machine
    assert value["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert value["nproc"] == os.cpu_count()
    assert value["files"]["/proc/meminfo"].startswith("MemTotal:")
    space = os.statvfs(tmp_path)
    assert value["filesystems"][str(tmp_path)]["total_bytes"] == space.f_blocks * space.f_frsize


def test_probe_shows_a_made_tree_bounded_and_as_text(helper: Helper, tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone3"
    cpu = tmp_path / "sys/devices/system/cpu/cpu7"
    for folder in (zone, cpu, tmp_path / "proc"):
        folder.mkdir(parents=True)
    (zone / "type").write_bytes(b"skin\xff\x01\n")
    (cpu / "cpu_capacity").write_text("1024\n")
    (tmp_path / "proc/cpuinfo").write_text("x" * 100_000)
    files = helper("probe", "--sysroot", tmp_path).value["files"]
    assert files["/sys/class/thermal/thermal_zone3/type"] == "skin\ufffd\x01\n"
    assert files["/sys/devices/system/cpu/cpu7/cpu_capacity"] == "1024\n"
    assert len(files["/proc/cpuinfo"]) == 65536
    assert "/proc/meminfo" not in files
