"""`farm devices check` on a real phone, a real board and this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.commands import check_verbs as verbs
from farm.commands.check_device import check
from farm.commands.hold import connected
from farm.core.lease import LeaseOwner
from farm.site.device.connection import Connection
from farm.transports import open as open_transport
from tests.command import Farm
from tests.contract.site_bench import make_home
from tests.lab.machine import Machine
from tests.lab.trees import TREES, Tree
from tests.lab.up import write_inventory

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]


def run(home: Path, folder: Path, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "farm", "devices", "check", name, "--soak", "1", *more]
    environment = Farm(home, folder).environment
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("kind", ["adb", "ssh"])
def test_a_device_that_nobody_has_seen(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    machine: Machine = request.getfixturevalue(f"{kind}_device")()
    home = make_home(tmp_path)
    write_inventory(tmp_path / "lab.yaml", [machine], local=False)
    done = run(home, tmp_path, machine.name, "--inventory", str(tmp_path / "lab.yaml"), "--json")
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    found = json.loads(done.stdout)
    rows: dict[tuple[str, str], dict[str, Any]] = {
        (row["area"], row["name"]): row for row in found["findings"]
    }
    failed = [row for row in rows.values() if row["state"] == "fails"]
    assert failed == []
    for piece in (
        ("transport", "push, resume, stat, pull"),
        ("transport", "words as given"),
        ("helper", "store"),
        ("helper", "supervise, poll, kill"),
        ("lease", "release"),
        ("sensors", "soak"),
        ("disk", "programs may run there"),
    ):
        assert rows[piece]["state"] == "works", rows[piece]
    blind = {key for key, row in rows.items() if row["state"] == "blind"}
    assert blind, "no lab device tells everything"
    assert all(rows[key]["means"] for key in blind - {("facts", "battery_level")}), blind
    assert ("trust", "hot_start") in rows or kind == "ssh"
    assert found["counts"]["blind"] == len(blind)
    for private in (machine.name, machine.address, str(machine.entry.serial)):
        assert private not in done.stdout
    assert machine.work_folders() == []
    assert list(machine.disk.glob("**/check-*")) == []


def test_a_device_that_somebody_has_is_not_disturbed(adb_device: Factory, tmp_path: Path) -> None:
    machine = adb_device()
    home = make_home(tmp_path)
    theirs = Connection(machine.entry, home)
    theirs.helper.take_lease(LeaseOwner("ann@desk", "run-9", 1))
    mine = Connection(machine.entry, home)
    findings, _ = check(mine, 1.0)
    held = [finding for finding in findings if finding.area == "lease"]
    assert [(finding.name, finding.state) for finding in held] == [("take", "skipped")]
    assert "leased by ann@desk" in held[0].detail
    assert not any(finding.name == "soak" for finding in findings)
    theirs.helper.renew_lease(LeaseOwner("ann@desk", "run-9", 1))
    for connection in (theirs, mine):
        connection.close()


def test_what_fails_is_told_and_the_rest_is_tried(ssh_device: Factory, tmp_path: Path) -> None:
    """A board where something else lies in the place of farm's store."""
    board = ssh_device()
    home = make_home(tmp_path)
    write_inventory(tmp_path / "lab.yaml", [board], local=False)
    with connected(board.name, tmp_path / "lab.yaml", home) as connection:
        connection.helper.version()
        objects = board.host_path(f"{connection.helper.root}/objects")
        objects.rmdir()
        objects.write_text("somebody's file")
    done = run(home, tmp_path, board.name, "--inventory", str(tmp_path / "lab.yaml"))
    assert done.returncode == 3
    assert "fails" in done.stdout
    assert "no run can use the device" in " ".join(done.stdout.split())
    assert "push, resume, stat, pull" in done.stdout
    assert " works, 1 fails, " in done.stdout.splitlines()[-1]


def test_the_latency_of_a_rented_phone_is_shown(adb_device: Factory) -> None:
    """An address of somebody else's rack, far away: the same commands, and how long they take."""
    phone = adb_device()
    transport = open_transport(phone.entry)
    try:
        near = verbs.round_trip(transport)
        phone.network.delay(0.06)
        far = verbs.round_trip(transport)
    finally:
        phone.network.undelay()
        transport.close()
    assert near.endswith(" ms")
    assert float(far.removesuffix(" ms")) >= 120


def test_boards_and_phones_that_people_have_show_their_blind_spots(
    ssh_device: Factory, adb_device: Factory, tmp_path: Path
) -> None:
    """One board and one phone take the /sys of each in turn; the helper reads real files."""
    first = {kind: next(tree for tree in TREES if tree.kind == kind) for kind in ("board", "phone")}
    machines = {
        "board": ssh_device(sys=first["board"].sys),
        "phone": adb_device(sys=first["phone"].sys),
    }
    home = make_home(tmp_path)
    for tree in TREES:
        machine = machines[tree.kind]
        become(machine, tree)
        connection = Connection(machine.entry, home)
        try:
            findings, _ = check(connection, 0.3)
        finally:
            connection.close()
        rows = {(finding.area, finding.name): finding for finding in findings}
        assert [f for f in findings if f.state == "fails"] == [], tree.name
        blind = {key for key, row in rows.items() if row.state == "blind"}
        assert blind - UNTOLD[tree.kind] == tree.blind, tree.name
        for key, part in tree.told.items():
            assert part in rows[key].detail, (tree.name, rows[key])


#: What no lab device of this kind tells, whatever its /sys: it has no battery or no SELinux, and
#: its processor is this machine's.
UNTOLD = {
    "board": {("facts", "battery_c"), ("facts", "battery_level"), ("facts", "soc")},
    "phone": {("facts", "SELinux")},
}


def become(machine: Machine, tree: Tree) -> None:
    """Make a lab device tell what another device tells."""
    machine.become(tree.sys)
    for path in ("etc/nvpmodel.conf", "var/lib/nvpmodel/status", "etc/nv_tegra_release"):
        machine.set_file(path, tree.files.get(path, ""))
    if tree.kind == "phone":
        properties = dict(
            line.split("=", 1)
            for line in (machine.state / "files/system/build.prop").read_text().splitlines()
        )
        properties |= {key: text for key, text in tree.files.items() if key.startswith("ro.")}
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        machine.set_file("system/build.prop", text)
        (machine.disk / "sim/thermalservice").write_text(tree.files["thermalservice"])
    machine.restart_daemon()
