"""A cluster of three hosts, started by the commands of its guide, and what strangers get of it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.command import CONFIGS, SOURCES, Farm, warm
from tests.integration.hosts import Guide, Hosts
from tests.integration.ray_ports import grpc_ports, http_status, refusing

pytestmark = [pytest.mark.ray, pytest.mark.lab]

GUIDES = SOURCES / "docs/guides"
HEAD = "198.19.0.1:6379"
ON = f"--inventory lab.yaml --cluster {HEAD}"


@pytest.fixture(scope="module")
def guide() -> Guide:
    return Guide(GUIDES / "lab-of-three-hosts.md")


@pytest.fixture(scope="module")
def hosts(
    lab: None, guide: Guide, warm_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosts]:
    """The three hosts of the guide and a stranger on their network; the cluster is up."""
    made = Hosts(tmp_path_factory.mktemp("hosts"), ("head", "rack1", "rack2", "stranger"))
    try:
        warm(made["head"].home, warm_store)
        for name, text in guide.files().items():
            (made["head"].folder / name).write_text(text)
        guide.run("Start", made)
        yield made
    finally:
        made.close()


def test_status_and_plan_show_every_site(hosts: Hosts, guide: Guide) -> None:
    status, plan = guide.run("Look", hosts)
    for words in ("rack1", "rack2", "server1", "server2", "ready"):
        assert words in status
    assert "tiny-llama" in plan
    assert "server2" in plan
    assert "device_missing" not in plan


def test_sites_are_listed_for_programs(hosts: Hosts) -> None:
    done = hosts["rack1"].run("farm site list --json")
    assert done.returncode == 0, done.stderr
    found = {site["name"]: (site["state"], site["address"]) for site in json.loads(done.stdout)}
    assert found == {"rack1": ("up", "198.19.0.2"), "rack2": ("up", "198.19.0.3")}


def test_every_socket_is_on_the_named_address_and_refuses_strangers(hosts: Hosts) -> None:
    token = (hosts["head"].home / "cluster/token").read_text()
    looked_at = set()
    for host in hosts:
        listening = host.listening()
        assert {ip for ip, _ in listening} <= {host.address}, listening
        grpc = grpc_ports(listening)
        for wrong in (None, "f" * 64):
            seen = hosts["stranger"].inside(partial(refusing, listening, token, wrong))
            assert seen == grpc, "a port answered to none of the methods"
            for place in (place for place, name in listening.items() if "RuntimeEnv" in name):
                status = hosts["stranger"].inside(partial(http_status, place, wrong))
                assert status in (401, 403)
        looked_at |= {name for name, _port in grpc}
    assert {"gcs_server", "raylet"} <= looked_at
    assert any(name.startswith("ray::_Agent") for name in looked_at)


_DRIVER = """
from farm.cluster import start
from farm.paths import farm_home
start.enter("{head}", None, farm_home())
start.launch("{head}")
import os, psutil
print(os.environ.get("LD_PRELOAD"))
for c in psutil.Process().net_connections():
    if c.status == psutil.CONN_LISTEN:
        print(c.laddr.ip.removeprefix("::ffff:"))
"""


def test_a_driver_listens_on_the_named_address_only(hosts: Hosts) -> None:
    script = hosts["head"].folder / "driver.py"
    script.write_text(_DRIVER.format(head=HEAD))
    done = hosts["head"].run(f"{sys.executable} driver.py")
    preloaded, *addresses = done.stdout.split()
    assert preloaded == "None", "what the driver starts would be bound too"
    assert set(addresses) == {"198.19.0.1"}, done.stderr


def test_who_may_not_join_is_told_why(hosts: Hosts) -> None:
    stranger = hosts["stranger"]
    (stranger.folder / "made-up").write_text("f" * 64)
    (stranger.folder / "made-up").chmod(0o600)
    wrong = stranger.run(f"farm site join {HEAD} --token made-up")
    assert wrong.returncode == 3
    assert "does not know this token" in wrong.stderr
    (stranger.folder / "made-up").chmod(0o644)
    assert stranger.run(f"farm site join {HEAD} --token made-up").returncode == 2
    taken = hosts["head"].run(f"farm site join {HEAD} --name rack1")
    assert taken.returncode == 3
    assert "is rack1 (198.19.0.2) already" in taken.stderr
    nobody = stranger.run("FARM_CLUSTER_TOKEN=made-up farm site list --cluster 198.19.0.1:6380")
    assert nobody.returncode == 2
    assert "chmod 600" in nobody.stderr


def test_a_person_holds_a_device_of_a_rack(hosts: Hosts, guide: Guide) -> None:
    held, shown, released = guide.run("Take a device", hosts)
    assert "server1 is held by" in held
    assert "@head: new fan" in held
    assert "@head: new fan" in shown, "another host saw no hold"
    assert "1 ready, 1 held" in shown or "1 held, 1 ready" in shown
    assert "server1 is free; it was held by" in released


def test_a_run_measures_at_the_racks(hosts: Hosts, guide: Guide) -> None:
    (printed,) = guide.run("Run", hosts)
    assert "2/2 judged: 2 passed" in printed
    report = json.loads((hosts["head"].folder / "runs/latest/report.json").read_text())
    for result in report["results"]:
        assert result["conditions"]["niceness"] == "0"
        assert result["performance"][0]["guards"]["priority"] == "ok"
    for rack in ("rack1", "rack2"):
        assert (hosts[rack].home / "device/objects").is_dir(), "it was not measured there"
    assert not (hosts["head"].home / "device/objects").exists()


def test_a_site_that_is_killed_is_gone_and_one_that_is_stopped_has_left(hosts: Hosts) -> None:
    for process in hosts["rack2"].processes():
        if process.name() == "raylet":
            process.kill()
    assert hosts["rack1"].run("farm site stop").returncode == 0
    assert hosts["rack1"].processes() == []
    end = time.monotonic() + 30
    found: dict[str, str] = {}
    while found.get("rack2") != "gone" and time.monotonic() < end:
        done = hosts["head"].run("farm site list --json")
        found = {site["name"]: site["state"] for site in json.loads(done.stdout)}
    assert found == {"rack1": "left", "rack2": "gone"}
    assert done.returncode == 3


def test_what_hangs_on_the_cluster_ends_with_it(hosts: Hosts, guide: Guide) -> None:
    guide.run("End", hosts)
    assert hosts["head"].processes() == []
    end = time.monotonic() + 60  # what a killed node leaves ends by itself
    while time.monotonic() < end and any(host.processes() for host in hosts):
        time.sleep(0.5)
    for host in hosts:
        assert host.processes() == [], host.name


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
