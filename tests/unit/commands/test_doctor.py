"""The doctor's probes on this machine and on made ones; every bad finding has a remedy."""

from __future__ import annotations

import collections
import importlib.metadata
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from farm.commands import doctor
from farm.commands.doctor import Check, checks, judge_cores
from farm.core.errors import ConnectError
from farm.host.limits import Limits
from farm.paths import model_cache, native_cache, store_root
from farm.store.objects import ContentStore
from farm.transports import adb_devices

Usage = collections.namedtuple("Usage", "total used free")
Mounted = collections.namedtuple("Mounted", "f_flag")


def test_one_check_per_probe_in_order_with_a_remedy_where_needed(tmp_path: Path) -> None:
    found = checks(tmp_path)
    assert [check.name for check in found] == list(doctor.PROBES)
    assert all(check.remedy for check in found if check.status != "ok")
    assert not any(check.remedy for check in found if check.status == "ok")


def test_a_hanging_probe_is_an_error_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(_home: Path) -> Check:
        released.wait(30)
        return Check("slow", "ok", "never seen")

    monkeypatch.setattr(doctor, "PROBES", {"slow": hang, "python": doctor.python})
    started = time.monotonic()
    slow, python = checks(tmp_path, deadline_s=0.3)
    released.set()
    assert time.monotonic() - started < 5
    assert slow.status == "error"
    assert "0.3 s" in slow.detail
    assert python.status == "ok"


def test_a_failing_probe_is_an_error_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_home: Path) -> Check:
        raise ValueError("odd file")

    monkeypatch.setattr(doctor, "PROBES", {"odd": fail, "python": doctor.python})
    odd, python = checks(tmp_path)
    assert (odd.status, python.status) == ("error", "ok")
    assert "odd file" in odd.detail


def test_a_python_newer_than_the_pins_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "NEWEST_PYTHON", (3, 10))
    assert doctor.python(tmp_path).status == "warn"


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "ray":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    check = doctor.packages(tmp_path)
    assert check.status == "error"
    assert "missing: ray" in check.detail


@pytest.mark.parametrize("name", ["nowhere-g++", "false"])
def test_a_compiler_that_is_missing_or_broken_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CXX", name)
    check = doctor.compiler(tmp_path)
    assert check.status == "error"
    assert "g++" in check.remedy or "CXX" in check.remedy


def test_a_compiler_that_can_not_compile_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "fake-g++"
    fake.write_text(
        "#!/bin/sh\n"
        'case "$1" in --version|-dumpmachine) echo fake; exit 0;; esac\n'
        "echo 'optional: No such file' >&2; exit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    check = doctor.compiler(tmp_path)
    assert (check.status, "optional: No such file" in check.detail) == ("error", True)


def adb_finds(monkeypatch: pytest.MonkeyPatch, text: str) -> Check:
    monkeypatch.setattr(adb_devices, "listens", lambda _address: True)
    rows = adb_devices.parse_devices(text)
    monkeypatch.setattr(adb_devices, "attached", lambda *, start: () if start else rows)
    return doctor.adb(Path())


def test_adb_lists_what_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    check = adb_finds(monkeypatch, "R58N\tdevice\n")
    assert (check.status, check.detail.endswith("devices: R58N (device)")) == ("ok", True)


def test_adb_tells_what_to_do_with_an_unusable_device(monkeypatch: pytest.MonkeyPatch) -> None:
    check = adb_finds(monkeypatch, "R58N\tdevice\nR59X\tunauthorized\n")
    assert check.status == "warn"
    assert check.remedy.startswith("R59X: unlock it")


def test_adb_server_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2)
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{listener.getsockname()[1]}")
        serving = threading.Thread(target=hang_up_on, args=(listener, 2))
        serving.start()
        check = doctor.adb(Path())
        serving.join(10)
    assert check.status == "error"
    assert "adb kill-server" in check.remedy


def test_a_variable_of_adb_that_leads_nowhere_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", "localabstract:adb")
    check = doctor.adb(Path())
    assert check.status == "error"
    assert "ADB_SERVER_SOCKET" in check.detail


def test_a_named_adb_server_that_is_down_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{port}")
    check = doctor.adb(Path())
    assert check.status == "error"
    assert f"no adb server answers at 127.0.0.1:{port}, which ADB_SERVER_SOCKET" in check.detail


def hang_up_on(listener: socket.socket, callers: int) -> None:
    for _ in range(callers):
        link, _address = listener.accept()
        link.close()


def test_no_adb_at_all_only_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_devices, "listens", lambda _address: False)

    def missing() -> str:
        raise ConnectError("there is no adb program")

    monkeypatch.setattr(adb_devices, "adb_program", missing)
    check = doctor.adb(Path())
    assert (check.status, "apt-get install adb" in check.remedy) == ("warn", True)


def test_home_is_writable_and_left_as_it_was(tmp_path: Path) -> None:
    home = tmp_path / "new"
    check = doctor.farm_home(home)
    assert check.status in ("ok", "warn")
    assert list(home.iterdir()) == []


def test_home_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("")
    check = doctor.farm_home(home)
    assert (check.status, "can't be written" in check.detail) == ("error", True)


@pytest.mark.parametrize(("free_gib", "status"), [(0.5, "error"), (3, "warn"), (50, "ok")])
def test_free_space_of_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gib: float, status: str
) -> None:
    usage = Usage(100 << 30, 0, int(free_gib * (1 << 30)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert doctor.farm_home(tmp_path).status == status


def test_home_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "file_system_type", lambda _path: "nfs4")
    check = doctor.farm_home(tmp_path)
    assert (check.status, "nfs4" in check.detail) == ("error", True)


def test_home_that_is_somebody_elses_inside_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "store" / "objects"
    part.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != part)  # as after sudo
    check = doctor.farm_home(tmp_path)
    assert (check.status, str(part) in check.detail) == ("error", True)
    assert "FARM_HOME" in check.remedy


def test_home_where_no_program_runs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(100 << 30, 0, 50 << 30))
    monkeypatch.setattr(os, "statvfs", lambda _path: Mounted(os.ST_NOEXEC))
    check = doctor.farm_home(tmp_path)
    assert (check.status, "noexec" in check.remedy) == ("warn", True)


def test_store_counts_what_is_there(tmp_path: Path) -> None:
    ContentStore(store_root(tmp_path)).put_bytes(b"x" * 1000, "x")
    (model_cache(tmp_path) / "hashes").mkdir(parents=True)
    (model_cache(tmp_path) / "ours").mkdir()
    build = native_cache(tmp_path) / "x86_64" / "farm-runner-0123456789ab"
    build.mkdir(parents=True)
    assert doctor.store(tmp_path).detail == (
        "1 objects (0.0 MiB); models: ours; native builds: x86_64"
    )


@pytest.mark.parametrize(
    ("quota", "status"), [(None, "ok"), (4.0, "ok"), (2.0, "ok"), (1.5, "warn")]
)
def test_a_quota_below_the_cores_is_told(quota: float | None, status: str) -> None:
    assert judge_cores(2, 4, Limits(None, quota)).status == status


def test_little_shared_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(64 << 20, 0, 64 << 20))
    check = doctor.shared_memory(tmp_path)
    assert (check.status, "--shm-size" in check.remedy) == ("warn", True)


def test_what_keeps_ray_from_starting_is_told_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "likely_causes", lambda: iter(["no loopback (ip link)", "x"]))
    check = doctor.ray(tmp_path)
    assert check.status == "warn"
    assert "no loopback (ip link); x" in check.detail
    assert "--cluster none" in check.remedy
    monkeypatch.setattr(doctor, "likely_causes", lambda: iter(()))
    assert doctor.ray(tmp_path).status == "ok"


def test_shared_memory_that_takes_nothing_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert doctor.shared_memory(tmp_path).status == "warn"


def test_a_compiler_that_finds_no_temporary_folder_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    check = doctor.compiler(tmp_path)
    assert (check.status, "TMPDIR" in check.remedy) == ("error", True)


def test_a_clock_behind_our_own_files_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    assert doctor.clock(tmp_path).status == "error"
