"""`farm devices` over real devices: holds that runs respect, shells, and a look at all kinds."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from farm.config.load import load_inventory
from farm.core.errors import LeaseError
from farm.planning.devices import survey
from tests.command import Farm
from tests.contract.site_bench import SiteBench, make_home
from tests.contract.toy_runner import GOOD
from tests.lab.board import new_host_key
from tests.lab.machine import Machine
from tests.lab.up import write_inventory
from tests.pace import slack

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]

#: `farm devices` gives a silent device less; this machine may be busy.
GLANCE_S = 4
#: CPU time that the command may use, imports and the table included: with the second that a silent
#: device is given it then answers within 2 s on a machine that has nothing else to do. Twice what
#: it uses there, because a busy machine makes CPU time longer too.
GLANCE_CPU_S = 1.6


@dataclass(frozen=True)
class Desk:
    """Somebody at a terminal: `farm` with an inventory of the lab."""

    folder: Path
    home: Path

    @property
    def inventory(self) -> Path:
        return self.folder / "lab.yaml"

    def argv(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "farm", *map(str, words), "--inventory", str(self.inventory)]

    def env(self, user: str = "ann") -> dict[str, str]:
        return {**Farm(self.home, self.folder).environment, "LOGNAME": user}

    def run(self, *words: object, user: str = "ann") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), env=self.env(user), capture_output=True, text=True, check=False
        )

    def shown(self, *words: object) -> dict[str, dict[str, object]]:
        done = self.run("devices", "--json", *words)
        assert done.returncode == 0, done.stderr
        return {row["entry"]["name"]: row for row in json.loads(done.stdout)}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, make_home(tmp_path))


@pytest.fixture(params=["adb", "ssh"])
def machine(request: pytest.FixtureRequest, adb_device: Factory, ssh_device: Factory) -> Machine:
    return adb_device() if request.param == "adb" else ssh_device()


def test_a_hold_outlives_its_command_and_keeps_runs_away(
    machine: Machine, desk: Desk, tmp_path: Path
) -> None:
    write_inventory(desk.inventory, [machine], local=False)
    name = machine.name
    # The lab's devices have this machine's uptime, also after a restart: longer than that.
    left = f"{int((time.time() - psutil.boot_time()) // 86400) + 2} d"
    words = ("--for", left.replace(" ", ""), "--reason", "new 'battery'; $(reboot)")
    done = desk.run("devices", "hold", name, *words)
    assert done.returncode == 0, done.stderr
    assert f"farm devices release {name}" in done.stdout
    row = desk.shown("--wait", 15)[name]
    assert row["state"] == "held"
    assert row["holder"]["reason"] == "new 'battery'; $(reboot)"  # type: ignore[index]

    async def another_controller() -> None:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        bench = SiteBench(folder)
        await bench.agent.inventory([machine.entry], adb_auto=False)
        finished = await bench.run(bench.job(GOOD, device=name))
        assert isinstance(finished.error, LeaseError)
        assert "held by ann@" in finished.error.message
        assert f"$(reboot), {left} left" in finished.error.message
        await bench.agent.close()

    asyncio.run(another_controller())
    waiting = str(desk.shown("--wait", 15)[name]["reason"])
    assert f"new 'battery'; $(reboot), {left} left; " in waiting
    assert "waits since" in waiting
    assert "for run run-1" in waiting
    machine.restart()
    machine.wait_listening()
    row = desk.shown("--wait", 20)[name]
    assert row["state"] == "held", row["reason"]
    refused = desk.run("devices", "release", name, user="bob")
    assert refused.returncode == 3
    assert "--from ann@" in refused.stderr
    owner = str(row["owner"])
    unforced = desk.run("devices", "release", name, "--from", owner, user="bob")
    assert unforced.returncode == 3
    assert "--force" in unforced.stderr
    taken = desk.run("devices", "release", name, "--from", owner, "--force", user="bob")
    assert (taken.returncode, "is free" in taken.stdout) == (0, True), taken.stderr
    assert desk.shown("--wait", 15)[name]["state"] == "ready"


def test_a_shell_holds_the_device_while_it_is_open(machine: Machine, desk: Desk) -> None:
    write_inventory(desk.inventory, [machine], local=False)
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        desk.argv("devices", "shell", machine.name),
        env=desk.env(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        _expect(ours, b"# ")
        os.write(ours, b"echo on-$((40 + 2))\n")
        _expect(ours, b"on-42")
        held = desk.run("devices", "hold", machine.name, "--reason", "mine", user="bob")
        assert held.returncode == 3
        assert "held by ann@" in held.stderr
        assert ": shell" in held.stderr
        os.write(ours, b"exit\n")
        assert shell.wait(30) == 0
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    words = [*desk.argv("devices", "shell", machine.name), "--", "sh", "-c", "echo on-42; exit 4"]
    done = subprocess.run(words, env=desk.env(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "on-42\n"), done.stderr
    assert desk.shown("--wait", 15)[machine.name]["state"] == "ready"


def _expect(descriptor: int, text: bytes, limit_s: float = 60.0) -> None:
    seen = b""
    end = time.monotonic() + limit_s
    while text not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        assert ready, seen
        seen += os.read(descriptor, 4096)


def test_one_of_each_kind_is_shown_with_its_reason(
    adb_device: Factory, ssh_device: Factory, desk: Desk
) -> None:
    good, frozen, off = adb_device("good", sensors=True), adb_device("frozen"), adb_device("off")
    board, refused, changed = ssh_device("board"), ssh_device("refused"), ssh_device("changed")
    machines = [good, frozen, off, board, refused, changed]
    write_inventory(desk.inventory, machines, local=True)
    text = desk.inventory.read_text()
    text = text.replace("- name: good\n", "- name: good\n  expect: {os: '15'}\n")
    # An address that nobody has.
    nowhere = "devices:\n- {name: nowhere, transport: ssh, host: 192.0.2.1, user: root}\n"
    text = text.replace("devices:\n", nowhere)
    desk.inventory.write_text(text)
    assert desk.run("devices", "hold", "board", "--reason", "soldering").returncode == 0
    desk.shown("--wait", 15)
    off.kill()
    new_host_key(changed)
    changed.restart_daemon()
    refused.set_file("etc/ssh/farm_authorized_keys", "", 0o600)
    refused.restart_daemon()
    frozen.freeze()
    try:
        used = _cpu_s()
        rows = desk.shown("--wait", GLANCE_S)
        used = _cpu_s() - used
        started = time.monotonic()
        survey(load_inventory(desk.inventory), "", desk.home, GLANCE_S)
        took_s = time.monotonic() - started
    finally:
        frozen.thaw()
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {
        "good": "unfit",
        "frozen": "offline",
        "off": "offline",
        "board": "held",
        "refused": "unauthorized",
        "changed": "untrusted",
        "nowhere": "offline",
        "local": "ready",
    }
    assert all(row["reason"] for row in rows.values() if row["state"] != "ready")
    assert "expected 15" in str(rows["good"]["reason"])
    assert "ssh-copy-id" in str(rows["refused"]["remedy"])
    assert "farm devices trust changed" in str(rows["changed"]["remedy"])
    # Those that say nothing cost the glance, all together, not their own limits of 15 s each.
    assert took_s < GLANCE_S + 3, took_s
    assert used < GLANCE_CPU_S * slack(), used


def _cpu_s() -> float:
    """CPU time of this process's children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_look_imports_only_the_transports_that_it_needs(desk: Desk) -> None:
    write_inventory(desk.inventory, [], local=True)
    code = (
        "import sys; from pathlib import Path; from farm.config.load import load_inventory; "
        "from farm.planning.devices import survey; "
        "found = survey(load_inventory(Path(sys.argv[1])), '', Path(sys.argv[2]), 15.0); "
        "heavy = {'paramiko', 'adbutils', 'ray', 'torch', 'numpy'}; "
        "print([d.state for d in found], sorted(heavy & set(sys.modules)))"
    )
    argv = [sys.executable, "-c", code, str(desk.inventory), str(desk.home)]
    done = subprocess.run(argv, env=desk.env(), capture_output=True, text=True, check=False)
    assert done.stdout == "['ready'] []\n", done.stderr
