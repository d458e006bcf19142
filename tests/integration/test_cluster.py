"""A cluster of three hosts, started by the commands of its guide, and what strangers get of it."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.command import SOURCES, warm
from tests.integration.hosts import Guide, Hosts
from tests.integration.night import Night, agents_of, kill_run, succeeded, until
from tests.integration.ray_ports import (
    grpc_ports,
    http_status,
    refusing,
)
from tests.pace import slack

pytestmark = [pytest.mark.ray, pytest.mark.lab]

GUIDES = SOURCES / "docs/guides"
FEW = "--set workload.launches=3 --set gates={}"


def on(hosts: Hosts) -> str:
    return f"--inventory lab.yaml --cluster {hosts.cluster}"


def there(hosts: Hosts) -> str:
    """From a rack, whose token is a copy."""
    return f"--cluster {hosts.cluster} --token farm-token"


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
    assert found == {
        "rack1": ("up", hosts["rack1"].address),
        "rack2": ("up", hosts["rack2"].address),
    }


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
    script.write_text(_DRIVER.format(head=hosts.cluster))
    done = hosts["head"].run(f"{sys.executable} driver.py")
    preloaded, *addresses = done.stdout.split()
    assert preloaded == "None", "what the driver starts would be bound too"
    assert set(addresses) == {hosts["head"].address}, done.stderr


def test_who_may_not_join_is_told_why(hosts: Hosts) -> None:
    stranger = hosts["stranger"]
    (stranger.folder / "made-up").write_text("f" * 64)
    (stranger.folder / "made-up").chmod(0o600)
    wrong = stranger.run(f"farm site join {hosts.cluster} --token made-up")
    assert wrong.returncode == 3
    assert "does not know this token" in wrong.stderr
    (stranger.folder / "made-up").chmod(0o644)
    assert stranger.run(f"farm site join {hosts.cluster} --token made-up").returncode == 2
    taken = hosts["head"].run(f"farm site join {hosts.cluster} --name rack1")
    assert taken.returncode == 3
    assert f"is rack1 ({hosts['rack1'].address}) already" in taken.stderr
    nobody = stranger.run(f"FARM_CLUSTER_TOKEN=made-up farm site list --cluster {hosts.net}1:6380")
    assert nobody.returncode == 2
    assert "chmod 600" in nobody.stderr


def test_a_person_holds_a_device_of_a_rack(hosts: Hosts, guide: Guide) -> None:
    held, shown, there, released = guide.run("Take a device", hosts)
    assert there == "rack1\n"
    assert "server1 is held by" in held
    assert "@head: new fan" in held
    assert "@head: new fan" in shown, "another host saw no hold"
    assert "1 ready, 1 held" in shown or "1 held, 1 ready" in shown
    assert "server1 is free; it was held by" in released


def test_a_device_of_a_rack_is_worked_on_and_kept_from_work_from_any_host(hosts: Hosts) -> None:
    head, rack1, rack2 = hosts["head"], hosts["rack1"], hosts["rack2"]
    shell = head.run(
        f"farm devices shell server2 {on(hosts)} -- sh -c 'uname -n; echo no >&2; exit 7'"
    )
    assert (shell.returncode, shell.stdout) == (7, "rack2\n")
    assert "no\n" in shell.stderr
    terminal = head.run(f"farm devices shell server2 {on(hosts)}")
    assert terminal.returncode == 2
    assert "needs the terminal of the device's own host" in terminal.stderr

    added = head.run(f"farm quarantine add server2 --reason 'fan stuck' {on(hosts)}")
    assert added.returncode == 0, added.stderr
    (own,) = json.loads(rack2.run("farm quarantine list --json").stdout)
    assert (own["name"], own["host"]) == ("server2", "rack2"), "its own host knows nothing of it"
    plan = head.run(f"farm plan configs/tiny.yaml {on(hosts)} --json")
    (skip,) = json.loads(plan.stdout)["skips"]
    assert (skip["flag"], "fan stuck" in skip["reason"]) == ("quarantined", True)
    listed = rack1.run(f"farm quarantine list {there(hosts)} --json")
    assert listed.returncode == 0, listed.stderr
    assert [row["name"] for row in json.loads(listed.stdout)] == ["server2"]
    released = rack1.run(f"farm quarantine release server2 {there(hosts)}")
    assert released.returncode == 0, released.stderr
    assert "fan stuck" in released.stdout
    again = rack1.run(f"farm quarantine release server2 {there(hosts)}")
    assert (again.returncode, "isn't in quarantine" in again.stderr) == (2, True)


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


def test_what_passed_is_deployed_at_the_racks(hosts: Hosts, guide: Guide) -> None:
    deployed, status, removed = guide.run("Ship", hosts)
    assert "2/2 have the new version" in deployed
    assert "2/2 devices looked at -> exit 0" in status
    assert removed.count("done") == 2
    for rack in ("rack1", "rack2"):
        assert (hosts[rack].home / "device/deployments").is_dir(), "it was not done there"
        assert not (hosts[rack].home / "device/deployments/kiosk").exists()
    assert not (hosts["head"].home / "device").exists()
    away = hosts["head"].run("farm deployments status --inventory lab.yaml")
    assert away.returncode == 3
    assert "0/2 devices looked at, 2 NOT asked -> exit 3" in away.stdout
    chat = hosts["head"].run(f"farm chat --on server1 {on(hosts)}")
    assert chat.returncode == 2
    assert "on the host that the device hangs on" in chat.stderr


def test_two_nights_at_once_with_everything_that_can_happen_to_them(hosts: Hosts) -> None:
    """A person's hold; a controller killed and gone on with; an agent killed; a rack cut off.

    Both runs have the same cells, on the same two devices: each ends with its own results.
    """
    head = hosts["head"]
    few = f"configs/tiny.yaml --inventory lab.yaml {FEW}"
    held = head.run(f"farm devices hold server2 --for 30min --reason fan {on(hosts)}")
    assert held.returncode == 0, held.stderr
    first = Night(hosts, f"{few} --out first")
    first.until("server1: measure")
    second = Night(hosts, f"{few} --out second")
    kill_run(first)
    assert not (head.folder / "first/latest/report.json").exists()
    again = Night(hosts, "--resume latest --out first")
    second.until("server2: held", "held by")
    assert head.run(f"farm devices release server2 {on(hosts)}").returncode == 0
    second.until("server1: measure", "server2: measure")
    for agent in agents_of(hosts["rack1"]):
        agent.kill()
    again.until("server2: measure")
    hosts.unplug("rack2")
    time.sleep(4)  # shorter than what Ray takes for a node's death
    hosts.plug("rack2")
    assert (again.end(), second.end()) == (0, 0), again.text + second.text

    for name in ("first", "second"):
        folder = head.folder / name / "latest"
        report = json.loads((folder / "report.json").read_text())
        assert [r["outcome"] for r in report["results"]] == ["passed", "passed"]
        assert {r["device"]["name"] for r in report["results"]} == {"server1", "server2"}
        assert succeeded(folder, report["run_id"]) == 2, "two devices, one result each"
        assert not [alarm for alarm in report["alarms"] if "of another run" in alarm]
    for rack in ("rack1", "rack2"):
        lease = (hosts[rack].home / "device/lease").read_text()
        assert '"released":true' in lease, lease


def test_a_run_is_watched_and_ended_from_another_host(hosts: Hosts) -> None:
    head, rack1, rack2 = hosts["head"], hosts["rack1"], hosts["rack2"]
    long = "--set workload.launches=90 --set workload.max_launches=100 --set workload.budget_s=120"
    night = Night(hosts, f"configs/tiny.yaml --inventory lab.yaml --out watched {long}")
    night.until("server1: measure")
    watching = rack1.start(f"exec farm watch --live off {there(hosts)} 2>&1")
    folder = head.folder / "watched/latest"
    cells = {
        c["devices"][0]: c["cell_id"]
        for c in json.loads((folder / "plan.json").read_text())["cells"]
    }
    one = rack2.run(f"farm cancel latest '{cells['server2']}' {there(hosts)} --json")
    assert one.returncode == 0, one.stderr
    assert json.loads(one.stdout)["cell_id"] == cells["server2"]
    night.until("cancelled by")
    other = rack2.run(f"farm cancel nowhere {there(hosts)}")
    assert (other.returncode, "no run 'nowhere' goes on" in other.stderr) == (2, True)
    assert rack2.run(f"farm cancel {there(hosts)}").returncode == 0
    assert night.end() == 130, night.text
    seen, _ = watching.communicate(timeout=120)
    assert watching.returncode == 130, seen
    assert "cancelled by" in seen
    assert seen.strip().splitlines()[-1] in night.text
    report = json.loads((folder / "report.json").read_text())
    flags = {r["cell_id"]: r["flags"] for r in report["results"]}
    assert flags == {cells["server1"]: ["interrupted"], cells["server2"]: ["cancelled"]}


def test_an_ended_run_ends_in_time_while_a_site_is_frozen(hosts: Hosts) -> None:
    night = Night(hosts, "configs/tiny.yaml --inventory lab.yaml --out third")
    night.until("server1: measure")
    agents = agents_of(hosts["rack1"])
    try:
        for agent in agents:
            agent.suspend()
        sent = time.monotonic()
        # As Ctrl-C does; that one is ignored below a shell's background jobs.
        night.process.send_signal(signal.SIGTERM)
        assert night.end(limit_s=60) == 130, night.text
        assert time.monotonic() - sent < 4 * slack()
    finally:
        for agent in agents:
            agent.resume()
    report = json.loads((hosts["head"].folder / "third/latest/report.json").read_text())
    assert {tuple(r["flags"]) for r in report["results"]} == {("interrupted",)}


def sites(hosts: Hosts) -> dict[str, str]:
    found = json.loads(hosts["head"].run("farm site list --json").stdout)
    return {site["name"]: site["state"] for site in found}


def test_a_rack_that_is_cut_off_until_ray_gives_it_up_loses_its_cells_and_comes_back(
    hosts: Hosts,
) -> None:
    """Longer than the run waits for a site, too: each cell has one result, and the run ends."""
    night = Night(hosts, f"configs/tiny.yaml --inventory lab.yaml --out cut {FEW}")
    night.until("server2: measure")
    hosts.unplug("rack2")
    try:
        assert night.end() == 3, night.text
        until(lambda: sites(hosts)["rack2"] == "gone", 120)
    finally:
        hosts.plug("rack2")
    report = json.loads((hosts["head"].folder / "cut/latest/report.json").read_text())
    found = {r["device"]["name"]: (r["outcome"], r["flags"]) for r in report["results"]}
    assert len(report["results"]) == 2
    assert found["server1"][0] == "passed"
    assert found["server2"][0] == "errored", found
    assert succeeded(hosts["head"].folder / "cut/latest", report["run_id"]) == 1
    rack2 = hosts["rack2"]
    until(
        lambda: rack2.run(f"farm site join {hosts.cluster} --token farm-token").returncode == 0, 120
    )
    assert sites(hosts) == {"rack1": "up", "rack2": "up"}
    again = Night(hosts, "--resume latest --out cut")
    assert again.end() == 0, again.text
    report = json.loads((hosts["head"].folder / "cut/latest/report.json").read_text())
    assert [r["outcome"] for r in report["results"]] == ["passed", "passed"]
    assert succeeded(hosts["head"].folder / "cut/latest", report["run_id"]) == 2


def test_a_site_that_is_killed_is_gone_and_one_that_is_stopped_has_left(hosts: Hosts) -> None:
    for process in hosts["rack2"].processes():
        if process.name() == "raylet":
            process.kill()
    assert hosts["rack1"].run("farm site stop").returncode == 0
    assert hosts["rack1"].processes() == []
    until(lambda: sites(hosts)["rack2"] == "gone", 60)
    assert sites(hosts) == {"rack1": "left", "rack2": "gone"}
    assert hosts["head"].run("farm site list").returncode == 3


def test_what_hangs_on_the_cluster_ends_with_it(hosts: Hosts, guide: Guide) -> None:
    guide.run("End", hosts)
    assert hosts["head"].processes() == []
    end = time.monotonic() + 60  # what a killed node leaves ends by itself
    while time.monotonic() < end and any(host.processes() for host in hosts):
        time.sleep(0.5)
    for host in hosts:
        assert host.processes() == [], host.name
