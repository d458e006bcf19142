"""A run's own cluster: its sockets are on the loopback address, and strangers are refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.command import SOURCES
from tests.integration.ray_ports import grpc_ports, http_status, refusing

pytestmark = pytest.mark.ray

#: A cluster as `farm run` starts it, with the agent of this host and one worker of the pool.
_CLUSTER = """
import asyncio, os, pathlib, sys
from farm.cluster import start

async def main():
    runtime = await start.start("local", pathlib.Path(os.environ["FARM_HOME"]))
    from farm.cluster.ray_pool import ray
    remote = ray.remote(lambda: (os.environ["RAY_AUTH_TOKEN"], os.nice(0))).remote()
    # What a worker starts is measured: it has the priority of this process.
    assert await remote == (os.environ["RAY_AUTH_TOKEN"], os.nice(0))
    print(ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runtime.close()

start.launch("local")
asyncio.run(main())
"""


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # An address or a token of the user's own must not get in.
        environment = {
            **os.environ,
            "FARM_HOME": str(folder / "home"),
            "HOME": str(folder),
            "PYTHONPATH": str(SOURCES),
            "RAY_AUTH_MODE": "disabled",
            "RAY_AUTH_TOKEN": "a" * 64,
        }
        # As `uv run` starts it: Ray would start its workers through uv too, which isn't there.
        (folder / "run").write_text('"$@"; exit $?\n')
        self.process = subprocess.Popen(
            ["uv", "run", sys.executable, "-c", _CLUSTER],
            executable="/bin/sh",
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        if len(words) != 2:
            self.process.communicate("")
            raise AssertionError(f"no cluster: exit code {self.process.returncode}")
        self.address, self.token = words

    def processes(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def listening(self) -> dict[tuple[str, int], str]:
        """Name of the process by address, of every socket that takes connections."""
        found = {}
        for process in self.processes():
            for connection in process.net_connections(kind="inet"):
                udp = connection.type == socket.SOCK_DGRAM and not connection.raddr
                if udp or connection.status == psutil.CONN_LISTEN:
                    ip, port = connection.laddr
                    found[ip.removeprefix("::ffff:"), port] = process.name()
        return found

    def close(self) -> None:
        processes = self.processes()
        self.process.communicate("", timeout=30)
        _, left = psutil.wait_procs(processes, timeout=10)
        assert not left


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


def test_every_socket_is_on_the_loopback_address(cluster: Cluster) -> None:
    listening = cluster.listening()
    assert {"gcs_server", "raylet"} <= set(listening.values()), "nothing was looked at"
    assert len(listening) >= 6
    assert {ip for ip, _ in listening} == {"127.0.0.1"}, listening


@pytest.mark.parametrize("token", [None, "f" * 64])
def test_head_and_workers_refuse_strangers(cluster: Cluster, token: str | None) -> None:
    listening = cluster.listening()
    assert refusing(listening, cluster.token, token) == grpc_ports(listening)


@pytest.mark.parametrize("token", [None, "f" * 64])
def test_agent_of_runtime_environments_refuses_strangers(
    cluster: Cluster, token: str | None
) -> None:
    (place,) = (place for place, name in cluster.listening().items() if "Env" in name)
    assert http_status(place, token) in (401, 403)


def test_a_driver_with_a_made_up_token_cannot_join(cluster: Cluster) -> None:
    environment = {
        **os.environ,
        "HOME": str(cluster.folder),
        "RAY_AUTH_MODE": "token",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else it looks for us on the external address
    }
    code = f"import ray; ray.init(address={cluster.address!r}, log_to_driver=False)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "RAY_AUTH_TOKEN": "f" * 64},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "InvalidAuthToken" in done.stderr


def test_nothing_is_written_to_the_users_home(cluster: Cluster) -> None:
    assert not (cluster.folder / ".ray").exists()
