"""Several Ray nodes on this machine, each with an address, a FARM_HOME and processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.command import SOURCES

#: A node is up within so long, seconds; on an idle machine it takes 3 to 8. Ray itself gives up
#: after 30, which a busy machine needs.
_START_S = 240.0
_RAYS_LIMIT = "timed out during startup"


@dataclass
class Node:
    """One host of the cluster."""

    home: Path
    process: subprocess.Popen[bytes]

    def workers(self, name: str) -> list[psutil.Process]:
        """Ray's workers of this node whose title has a name in it."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.cmdline() and name in child.cmdline()[0]:
                    found.append(child)
        return found

    def end(self) -> None:
        """Kill the node with everything on it, as a power cut does."""
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        self.process.wait()


@dataclass
class RayNodes:
    """A cluster whose nodes know its token; the first one that is added is the head."""

    folder: Path
    port: int = field(default_factory=lambda: _free_port())
    nodes: dict[str, Node] = field(default_factory=dict)

    @property
    def token(self) -> Path:
        """File of the token."""
        path = self.folder / "token"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32))
        return path

    @property
    def address(self) -> str:
        return f"127.0.0.2:{self.port}"

    def environment(self, home: Path) -> dict[str, str]:
        """What a process of one host gets, a driver's too."""
        return {
            **os.environ,
            "FARM_HOME": str(home),
            "HOME": str(self.folder),
            "PYTHONPATH": str(SOURCES),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            # Chunks leave shared memory when they were written, not up to a second later.
            "RAY_free_objects_period_milliseconds": "50",
            # A killed node is noticed in seconds.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
        }

    def add(self, name: str, home: Path, *, cpus: int, site: str | None = None) -> Node:
        """Start a node; again where Ray was too impatient."""
        end = time.monotonic() + _START_S
        while not self._started(name, home, cpus, site, end):
            self.nodes[name].end()
            del self.nodes[name]
        return self.nodes[name]

    def _started(self, name: str, home: Path, cpus: int, site: str | None, end: float) -> bool:
        where = (
            [
                "--head",
                f"--port={self.port}",
                f"--temp-dir={self.folder}",
                "--include-dashboard=false",
            ]
            if not self.nodes
            else [f"--address={self.address}"]
        )
        log = (self.folder / f"{name}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *where,
                    f"--node-ip-address=127.0.0.{len(self.nodes) + 2}",
                    f"--num-cpus={cpus}", "--object-store-memory=200000000",
                    f"--resources={json.dumps({f'site:{site}': 1} if site else {})}",
                ],
                env=self.environment(home), stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self.nodes[name] = Node(home, process)
        path = self.folder / f"{name}.log"
        while "Ray runtime started" not in (text := path.read_text("utf-8", "replace")):
            assert time.monotonic() < end, text
            if process.poll() is not None:
                assert _RAYS_LIMIT in path.read_text("utf-8", "replace"), text
                return False
            time.sleep(0.1)
        return True

    def close(self) -> None:
        for node in reversed(list(self.nodes.values())):
            node.end()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def ray_nodes() -> Iterator[RayNodes]:
    """Provide a cluster without nodes; its folder's path is short, as Ray's sockets need it."""
    cluster = RayNodes(Path(tempfile.mkdtemp(prefix="fr", dir="/tmp")))
    try:
        yield cluster
    finally:
        cluster.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
