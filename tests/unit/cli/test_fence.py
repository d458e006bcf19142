"""The last fence of the command line, and output that nobody takes. Real processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farm.cli import defects
from tests.command import SOURCES


def start(
    home: Path, body: str, *arguments: str, prefix: str = "", stdout: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `farm models` with its rows replaced by a function of ours."""
    code = (
        # A shell that starts the tests in the background lets them ignore SIGINT.
        "import os, sys, signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"{prefix}\n"
        f"def rows():\n    {body}\n"
        "from farm.planning import catalog\ncatalog.model_rows = rows\n"
        "from farm.cli import main\nsys.argv = ['farm', 'models', *sys.argv[1:]]\nmain()\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env={**os.environ, "FARM_HOME": str(home), "PYTHONPATH": str(SOURCES)},
        check=False,
    )


def test_a_foreign_error_is_exit_70_with_its_traceback_in_a_file(tmp_path: Path) -> None:
    done = start(tmp_path, "return {}['absent']")
    assert done.returncode == 70
    assert len(done.stderr.splitlines()) == 1
    assert "a defect of farm itself: KeyError: 'absent'" in done.stderr
    (kept,) = (tmp_path / "defects").iterdir()
    assert str(kept) in done.stderr
    assert "in rows" in kept.read_text()


def test_without_a_place_for_the_file_the_traceback_is_shown(tmp_path: Path) -> None:
    (tmp_path / "defects").write_text("in the way")
    done = start(tmp_path, "raise ValueError('odd\\x1b[31m')")
    assert done.returncode == 70
    assert "in rows" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files", "/x"), "ulimit -n"),
        (MemoryError(), "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "/tmp/x"),
        (OSError(errno.EINVAL, "Invalid argument"), ""),
        (RuntimeError("dictionary changed size"), ""),
    ],
)
def test_a_limit_of_the_host_is_no_defect_and_has_a_remedy(error: Exception, says: str) -> None:
    told = defects.limit_of_host(error)
    assert says in told
    assert bool(told) == bool(says)


def test_a_command_on_a_host_that_gives_no_more_ends_with_3(tmp_path: Path) -> None:
    done = start(tmp_path, "raise OSError(24, 'Too many open files')")
    assert (done.returncode, "ulimit -n" in done.stderr) == (3, True)
    assert len(done.stderr.splitlines()) == 1


def test_notes_of_an_error_are_shown(tmp_path: Path) -> None:
    body = "e = ValueError('odd'); e.add_note('The run is in runs/x.'); raise e"
    assert "The run is in runs/x." in start(tmp_path, body).stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_a_command_with_130(tmp_path: Path, name: str) -> None:
    done = start(tmp_path, f"os.kill(os.getpid(), signal.{name}); time.sleep(9)")
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_end_what_asyncio_runs_without_a_traceback(tmp_path: Path, name: str) -> None:
    asynchronous = (
        "import asyncio\nasync def work():\n"
        f"    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.{name})\n"
        "    try:\n        await asyncio.sleep(9)\n    finally:\n        print('cleaned')"
    )
    done = start(tmp_path, "asyncio.run(work())", prefix=asynchronous)
    assert (done.returncode, done.stderr, done.stdout) == (130, "", "cleaned\n")


def test_nohup_keeps_its_promise(tmp_path: Path) -> None:
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    done = start(tmp_path, "os.kill(os.getpid(), signal.SIGHUP); return []", prefix=ignored)
    assert (done.returncode, done.stderr) == (0, "")


ROWS = "return [('m' * 60,) * 4] * 2000"


def test_a_reader_that_left_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = start(tmp_path, ROWS, "--json", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_output_on_a_full_disk_is_an_error_and_named(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = start(tmp_path, ROWS, "--json", stdout=full.fileno())
    assert done.returncode == 3
    assert done.stderr == "farm: can't write to standard output: No space left on device\n"


def test_closed_streams_and_an_ascii_terminal(tmp_path: Path) -> None:
    assert start(tmp_path, ROWS, prefix="sys.stdout = None").returncode == 0
    ascii_only = "sys.stdout.reconfigure(encoding='ascii', errors='strict')"
    done = start(tmp_path, "return [('\\u4e2d',) * 4]", prefix=ascii_only)
    assert done.returncode == 0, done.stderr
    assert "\\u4e2d" in done.stdout
