"""A node that does not come up: why stands in its output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farm.cluster import node, start_failure
from farm.cluster.node import running, start_node, stop_node
from farm.core.errors import PlanError

TAKEN = "raise SystemExit('error: the port is taken')"
SLOW = "raise SystemExit('Exception: The current node timed out during startup. This could')"
STAYS = "import time; time.sleep(60)"


def begin(home: Path, monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    """Start and end a head whose processes are these programs, one after the other."""
    left, made = list(programs), []

    def spawn(kind: str, words: object, home: Path, address: str) -> subprocess.Popen[bytes]:
        log = node.log_file(kind, home)
        log.parent.mkdir(exist_ok=True, parents=True)
        with log.open("wb") as out:
            made.append(subprocess.Popen([sys.executable, "-c", left.pop(0)], stderr=out))
        return made[-1]

    monkeypatch.setattr(node, "_spawn", spawn)
    try:
        start_node(
            "head",
            (),
            home,
            cluster="127.0.0.2:6379",
            address="127.0.0.2",
            name="",
            token=home / "token",
            ready=lambda: not left and programs[-1] == STAYS,
        )
        assert running("head", home) is not None
    finally:
        stop_node("head", home)
        for process in made:
            process.wait()


def test_a_node_that_ends_by_itself_is_told_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlanError, match="did not start: error: the port is taken"):
        begin(tmp_path, monkeypatch, TAKEN)
    assert running("head", tmp_path) is None


def test_a_node_that_ray_gave_up_on_a_busy_host_starts_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (node, start_failure):
        monkeypatch.setattr(module, "likely_causes", lambda: iter(()))
    begin(tmp_path, monkeypatch, SLOW, STAYS)
    assert "this host was busy (load" in caplog.text
    with pytest.raises(PlanError, match=r"was busy .*, twice: try again when less goes on here"):
        begin(tmp_path, monkeypatch, SLOW, SLOW)
    monkeypatch.setattr(start_failure, "likely_causes", lambda: iter(["too little memory"]))
    with pytest.raises(PlanError, match="did not start: Exception: The current node timed out"):
        begin(tmp_path, monkeypatch, SLOW)
