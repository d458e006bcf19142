"""Which process an order gets: one that had an order before, if it is as good as a new one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from farm.tasks import kept_worker
from tests.command import SOURCES

#: Stands for an interpreter that runs models.worker: says its number for each order.
SCRIPT = '#!/bin/sh\nwhile read -r order; do echo $$; echo "$order" >&2; done\n'


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "python"
    path.write_text(SCRIPT)
    path.chmod(0o755)
    yield path
    kept_worker.end_idle()


def ordered(python: Path) -> int:
    """Have an order performed; returns the number of the process."""
    with kept_worker.lent(python) as worker:
        worker.order("order")
        line = worker.lines.get(timeout=30)
        assert line is not None
        return int(line)


def test_the_next_order_gets_the_same_process(python: Path) -> None:
    first = ordered(python)
    assert ordered(python) == first
    kept_worker.end_idle()
    assert not psutil.pid_exists(first)


def test_two_orders_at_once_have_a_process_each(python: Path) -> None:
    with kept_worker.lent(python):
        first = ordered(python)
        assert ordered(python) == first
    assert len({ordered(python) for _ in range(2)}) == 1


def test_another_environment_or_interpreter_is_another_process(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = python.with_name("other")
    other.write_bytes(python.read_bytes())
    other.chmod(0o755)
    numbers = [ordered(python), ordered(other)]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert len({*numbers, ordered(python)}) == 3


def test_a_worker_reads_and_writes_what_we_do_whatever_the_user_set(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.stdin.readline()[::-1].strip())")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-16")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    with kept_worker.lent(python) as worker:
        worker.order("or\u00e9")
        assert worker.lines.get(timeout=30) == "\u00e9ro\n"


def test_after_an_error_the_process_is_gone(python: Path) -> None:
    first = ordered(python)
    with pytest.raises(TimeoutError), kept_worker.lent(python):
        raise TimeoutError
    assert not psutil.pid_exists(first)
    assert ordered(python) != first


def test_a_process_that_was_killed_meanwhile_gets_no_order(python: Path) -> None:
    first = ordered(python)
    os.kill(first, signal.SIGKILL)
    psutil.Process(first).wait(30)
    assert ordered(python) != first


def test_an_idle_process_is_let_go(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_worker, "_KEPT_S", 0.05)
    first = psutil.Process(ordered(python))
    first.wait(30)


def test_a_worker_performs_what_it_is_asked_one_after_the_other() -> None:
    """Each request in a process of its own, whose end is said."""
    done = subprocess.run(
        [sys.executable, "-m", "models.worker"],
        input='no json\n{"task": "dance"}\n',
        capture_output=True,
        text=True,
        cwd=SOURCES,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["error", "end"] * 2, done.stderr
    assert [line["code"] for line in lines if line["type"] == "end"] == [1, 1]
    assert done.returncode == 0
