"""A run from the head of the small lab: what it printed and journaled, and who is killed then."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.integration.hosts import Host, Hosts


class Night:
    """A run from the head, with what it printed so far."""

    def __init__(self, hosts: Hosts, words: str) -> None:
        self.process = hosts["head"].start(
            f"exec farm run {words} --live off --cluster {hosts.cluster} 2>&1"
        )
        self.lines: list[str] = []

    def until(self, *words: str) -> str:
        """Read on to a line that has one of these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if any(word in line for word in words):
                return line
        raise AssertionError(f"none of {words} came:\n{self.text}")

    def end(self, limit_s: float = 300) -> int:
        rest, _ = self.process.communicate(timeout=limit_s)
        self.lines.append(rest)
        return self.process.returncode

    @property
    def text(self) -> str:
        return "".join(self.lines)


def succeeded(folder: Path, run_id: str) -> int:
    """Jobs that ended well by a run's journal; every one in it is the run's own."""
    with contextlib.closing(sqlite3.connect(folder / "journal.db")) as db:
        rows = db.execute("SELECT data FROM events WHERE kind = 'JobFinished'").fetchall()
    ends = [json.loads(data) for (data,) in rows]
    assert {end["run_id"] for end in ends} == {run_id}
    return sum(end["error"] is None for end in ends)


def until(holds: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.5)


def agents_of(host: Host) -> list[psutil.Process]:
    """The agent's processes of a host; one that ends meanwhile is none."""
    found = []
    for process in host.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "_Agent" in "".join(process.cmdline()[:1]):
                found.append(process)
    assert found, f"no agent at {host.name}"
    return found


def kill_run(night: Night) -> None:
    """Kill the process of a run and what it started itself, as `kill -9` does."""
    driver = psutil.Process(night.process.pid)
    assert any("farm" in word for word in driver.cmdline()), driver.cmdline()
    for process in [driver, *driver.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    night.end()
