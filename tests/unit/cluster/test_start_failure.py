"""What a start that fails says: the limit that is too tight, in few lines, and the way on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farm.clock import Deadline
from farm.cluster import start_failure
from farm.cluster.start_failure import cannot_start, likely_causes, ray_folder, telling
from tests.pace import slack

GIB = 1 << 30
#: A folder whose path leaves room for a socket's.
SHORT = Path("/tmp/ray")


def group(root: Path, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/box\n")
    (root / "sys/fs/cgroup/box").mkdir(parents=True)
    for name, text in files.items():
        (root / "sys/fs/cgroup/box" / name.replace("_", ".")).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"memory_max": f"{350 << 20}\n"}, "350 MiB of memory"),
        ({"pids_max": "120\n"}, "120 tasks"),
    ],
)
def test_names_the_control_groups_limit(tmp_path: Path, files: dict[str, str], says: str) -> None:
    (cause,) = likely_causes(group(tmp_path / "tight", **files), SHORT)
    assert says in cause
    assert "docker run" in cause


def test_roomy_host_has_no_cause(tmp_path: Path) -> None:
    roomy = group(tmp_path / "roomy", memory_max=f"{4 * GIB}\n", pids_max="max\n")
    (roomy / "dev/shm").mkdir(parents=True)
    assert list(likely_causes(roomy, SHORT)) == []


def test_names_a_temporary_folder_that_is_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / "ray"
    (cause,) = likely_causes(tmp_path, deep)
    assert str(deep.parent) in cause
    assert "TMPDIR" in cause


def test_names_a_folder_that_takes_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> int:
        raise OSError(30, "Read-only file system", str(path))

    (tmp_path / "dev/shm").mkdir(parents=True)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    found = list(likely_causes(tmp_path, Path("/tmp/ray")))
    assert [cause for cause in found if "dev/shm" in cause and "Read-only" in cause]
    assert [cause for cause in found if cause.startswith("/tmp") and "TMPDIR" in cause]


def test_names_the_tasks_that_a_user_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (60, 60))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (cause,) = likely_causes(tmp_path, SHORT)
    assert "60 tasks" in cause
    assert "ulimit -u" in cause
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert list(likely_causes(tmp_path, SHORT)) == []


def test_a_start_on_a_host_with_too_much_to_do_names_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_failure, "likely_causes", lambda: iter(()))
    monkeypatch.setattr(os, "getloadavg", lambda: (400.0, 1.0, 1.0))
    assert "Likely cause: 400 programs want" in cannot_start("it took too long").message
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 1.0, 1.0))
    assert "No limit of this host explains it" in cannot_start("it took too long").message


def test_error_names_cause_logs_and_way_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_failure, "likely_causes", lambda: iter(["too little memory"]))
    monkeypatch.setenv("TMPDIR", "/scratch")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    text = cannot_start("it did not start within 90 s").message
    for part in ("within 90 s", "too little memory", "/scratch/ray/session_latest/logs"):
        assert part in text
    assert "`--cluster none`" in text


def test_rays_folder_is_found_by_rays_rule() -> None:
    assert ray_folder({}) == Path("/tmp/ray")
    assert ray_folder({"TMPDIR": "/a"}) == Path("/a/ray")
    assert ray_folder({"TMPDIR": "/a", "RAY_TMPDIR": "/b"}) == Path("/b/ray")


def test_long_texts_are_cut_to_what_tells() -> None:
    text = "\n".join(
        [
            "Exception: The current node timed out during startup.",
            *(f"[2026-11-29 22:00:0{n},000 I 1 1] gcs.cc:{n}: fine" for n in range(9)),
            '  File "node.py", line 306, in __init__',
            "*** StackTrace Information ***",
            "all went well here",
            "Failed to start the raylet. " + "x" * 500,
        ]
    )
    found = telling(text)
    assert found.startswith("Exception: The current node timed out during startup")
    assert "Failed to start the raylet" in found
    assert not any(noise in found for noise in ("gcs.cc", "File", "StackTrace", "went well"))
    assert len(found) < 500
    assert telling("\n \n") == "it gave no reason"


#: Ray's native code holds the interpreter while it waits for a raylet that the kernel killed.
_HANGS = """
import ctypes, os, subprocess, sys, time, types
from farm.cluster import start

def orphan():
    words = "['ray::Agent', '60'], executable='sleep', env={}, stdout=2"  # it has no mark of a run
    code = f"import subprocess; print(subprocess.Popen({words}).pid)"
    return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE).stdout)

runtime = types.ModuleType("farm.cluster.ray_runtime")
runtime.start_local = lambda cpus: print(orphan(), flush=True) or ctypes.PyDLL(None).sleep(60)
import farm.cluster
sys.modules["farm.cluster.ray_runtime"] = farm.cluster.ray_runtime = runtime
start.launch("local", limit_s=0.5)
"""


def test_a_start_that_hangs_ends_with_its_cause() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HANGS],
        capture_output=True,
        text=True,
        timeout=30 * slack(),
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "did not start within" in done.stderr
    assert "--cluster none" in done.stderr
    assert "Traceback" not in done.stderr
    left = Path(f"/proc/{int(done.stdout)}/cmdline")
    deadline = Deadline(10)
    while left.exists() and left.read_bytes() and not deadline.passed:
        time.sleep(0.05)
    assert not (left.exists() and left.read_bytes()), "an orphan of Ray's was left"


def test_a_start_in_time_leaves_no_trace(tmp_path: Path) -> None:
    # Modules of the working directory are not farm's.
    (tmp_path / "farm.py").write_text("raise ImportError")
    code = (
        _HANGS.replace("print(orphan(), flush=True) or ctypes.PyDLL(None).sleep(60)", "print(7)")
        + "print(8)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=30 * slack(),
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n8\n", "")
