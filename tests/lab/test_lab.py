"""The lab itself: its devices are what they claim, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.transports import open as open_transport
from farm.transports.adb_devices import attached
from tests.lab.bounds import Bounds
from tests.lab.host import lab_dir, sh
from tests.lab.machine import Machine
from tests.lab.network import Network
from tests.lab.phone import AdbServer

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]
BOOT_ID = Command(("cat", "/proc/sys/kernel/random/boot_id"))
HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'


@pytest.fixture(params=["adb", "ssh"])
def factory(request: pytest.FixtureRequest) -> Factory:
    made: Factory = request.getfixturevalue(f"{request.param}_device")
    return made


def output(machine: Machine, *argv: str) -> str:
    transport = open_transport(machine.entry)
    try:
        return transport.run(Command(argv, timeout_s=60)).text
    finally:
        transport.close()


def test_a_reboot_keeps_the_disk_and_nothing_else(factory: Factory) -> None:
    machine = factory()
    root = machine.userland.disk_at
    first = output(machine, *BOOT_ID.argv)
    output(machine, "sh", "-c", f"echo kept > {root}/kept; echo lost > /etc/lost")
    machine.restart()
    assert output(machine, *BOOT_ID.argv) not in ("", first)
    assert output(machine, "cat", f"{root}/kept") == "kept\n"
    assert output(machine, "sh", "-c", "[ -e /etc/lost ] || echo lost") == "lost\n"


def test_devices_have_names_and_disks_of_their_own(factory: Factory) -> None:
    machines = [factory(disk_mb=32), factory(disk_mb=64)]
    assert [output(machine, "hostname").strip() for machine in machines] == [
        machine.name for machine in machines
    ]
    sizes = [os.statvfs(machine.disk) for machine in machines]
    assert [size.f_blocks * size.f_frsize >> 20 for size in sizes] == [32, 64]


def test_what_a_device_writes_stays_off_this_machine(factory: Factory) -> None:
    machine = factory()
    name = f"/etc/farm-lab-{machine.name}"
    assert output(machine, "sh", "-c", f"echo x > {name}; cat {name}") == "x\n"
    assert not Path(name).exists()


def test_a_destroyed_device_leaves_nothing(factory: Factory, machines: list[Machine]) -> None:
    machine = factory()
    machines.remove(machine)
    pid = machine.pid
    machine.destroy()
    assert machine.network.pids() == []
    assert not Path(f"/proc/{pid}").exists()
    assert not machine.state.exists()
    mounts = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert not [place for place in mounts if place.is_relative_to(machine.state)]
    assert machine.network.namespace not in sh("ip", "netns", "list").split()
    assert not Path(f"/sys/class/net/{machine.network.link}").exists()


def test_limits_end_under_a_device_that_goes_on_starting_processes(lab: None) -> None:
    bounds = Bounds("farm-lab-busy")
    shell = subprocess.Popen(["sh", "-c", "while :; do (sleep 0.001) & /bin/true; done"])
    group = Path(f"/proc/{shell.pid}/cgroup")
    try:
        for _ in range(30):
            bounds.processes(1000, [shell.pid])
            assert "farm-lab-busy" in group.read_text()
            time.sleep(0.02)
            bounds.remove()
            assert "farm-lab-busy" not in group.read_text()
    finally:
        shell.kill()
        shell.wait()


def test_a_phone_shows_its_name_in_the_list(adb_device: Factory, adb_server: AdbServer) -> None:
    machine = adb_device()
    output(machine, "true")
    row = next(row for row in attached(adb_server.address) if row.serial == machine.entry.serial)
    assert (row.state, row.model) == ("device", f"Farm_{machine.name}")
    assert output(machine, "getprop", "ro.serialno").strip() == machine.name
    assert "level: 87" in output(machine, "dumpsys", "battery")


@pytest.mark.parametrize("kind", ["adb", "ssh"])
def test_arm64_devices_run_arm64_programs(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    factory: Factory = request.getfixturevalue(f"{kind}_device")
    machine = factory(arch="arm64")
    assert output(machine, "uname", "-m") == "aarch64\n"
    results = {}
    for linking in ("static", "dynamic"):
        program = tmp_path / linking
        options = ["-static"] if linking == "static" else []
        sh("aarch64-linux-gnu-g++", "-x", "c++", "-", *options, "-o", program, stdin=HELLO)
        transport = open_transport(machine.entry)
        remote = f"{machine.userland.disk_at}/{linking}"
        transport.push(program, remote, mode=0o755)
        results[linking] = transport.run(Command((remote,), timeout_s=60)).text
        transport.close()
    # A phone has no glibc: what is linked against it can't even start.
    assert results == {"static": "hello\n", "dynamic": "" if kind == "adb" else "hello\n"}
    if kind == "adb":
        looked = output(machine, "sh", "-c", "ls -d /lib64 /lib/ld-linux* /lib/*/libc.so.6")
        assert looked == ""


def test_what_a_killed_run_left_is_cleared_by_the_next(lab: None, tmp_path: Path) -> None:
    code = (
        "import time; from tests.lab.board import make_board\n"
        "m = make_board('leftover'); print(m.slot.number, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    number = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    network = Network(_Number(number))  # type: ignore[arg-type]
    deadline = time.monotonic() + 5
    while network.pids() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert network.pids() == [], "its processes died with it"
    assert Path(f"/sys/class/net/{network.link}").exists()
    network.create()
    network.remove()
    assert not Path(f"/sys/class/net/{network.link}").exists()
    state = lab_dir() / "machines" / str(number)
    sh("umount", "-l", state / "disk", check=False)
    sh("rm", "-rf", state)


class _Number:
    """A slot whose number is known already."""

    def __init__(self, number: int) -> None:
        self.number = number
