"""The head of a cluster that only this host reaches: as a service, and one that can't be bound."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from tests.command import CONFIGS, SOURCES, Farm

pytestmark = [pytest.mark.ray, pytest.mark.lab]

GUIDES = SOURCES / "docs/guides"


def test_a_service_of_systemd_ends_all_that_it_started(tmp_path: Path, farm: Farm) -> None:
    (line,) = (
        line.partition("=")[2].split()
        for line in (GUIDES / "farm-head.service").read_text().splitlines()
        if line.startswith("ExecStart=")
    )
    assert line[1:] == ["cluster", "up", "--foreground", "--interface", "eth0"]
    # Without an interface: this host alone.
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
    service = farm.start(*line[1:4], "--port", str(port))
    assert service.stdout is not None
    cluster = f"127.0.0.2:{port}"
    assert f"{cluster} is up" in service.stdout.readline()
    plan = farm("plan", str(CONFIGS / "tiny.yaml"), "--select", "name=local", "--cluster", cluster)
    assert plan.returncode == 0, plan.stderr
    children = psutil.Process(service.pid).children(recursive=True)
    assert any("gcs_server" in child.name() for child in children)
    service.send_signal(signal.SIGTERM)
    assert service.wait(timeout=30) == 130
    service.stdout.close()
    end = time.monotonic() + 5
    while time.monotonic() < end and any(_lives(child) for child in children):
        time.sleep(0.1)
    assert [child for child in children if _lives(child)] == []


def test_a_head_that_would_listen_on_every_interface_is_ended(tmp_path: Path) -> None:
    """The loader takes a blank for the end of a library's name, and only warns."""
    farm = Farm(tmp_path / "a home", tmp_path)
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
    done = farm("cluster", "up", "--port", str(port))
    assert done.returncode == 3
    assert "would listen on every interface" in done.stderr
    assert farm.processes() == []


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
