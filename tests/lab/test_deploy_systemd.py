"""A deployment that starts with its device, under a real systemd: the user manager of a board."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm import transports
from farm.core.command import Command
from farm.deploy import begin
from tests.command import CONFIGS, Farm
from tests.lab.machine import Machine
from tests.lab.test_deploy_faults import Fleet
from tests.lab.test_run_lab import until
from tests.lab.up import write_inventory
from tests.pace import slack

pytestmark = [pytest.mark.lab, pytest.mark.export]

#: A boot would do this: a control group and a runtime folder of the user's own, and the manager.
_MANAGER = """
set -e
for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -e $tree/cgroup.procs ] || continue
    mkdir -p $tree/{group}
    echo $$ > $tree/{group}/cgroup.procs
    case $tree in *systemd) ;; *) break ;; esac
done
export XDG_RUNTIME_DIR=/run/user/0
mkdir -p -m 700 $XDG_RUNTIME_DIR
mkdir -p /run/systemd/system
setsid /usr/lib/systemd/systemd --user < /dev/null > /root/manager.log 2>&1 &
i=0
until systemctl --user is-system-running > /dev/null 2>&1; do
    case "$(systemctl --user is-system-running 2> /dev/null)" in degraded) break ;; esac
    i=$((i+1)); [ $i -lt 300 ] || {{ cat /root/manager.log; exit 1; }}
    sleep 0.1
done
"""

_ENTER = "export XDG_RUNTIME_DIR=/run/user/0;"
_STATE = f"{_ENTER} systemctl --user is-active farm-kiosk || :"


@pytest.fixture
def groups() -> Iterator[list[str]]:
    """Names of control groups that are removed once everything in them is gone."""
    made: list[str] = []
    yield made
    for name in made:
        for tree in Path("/sys/fs/cgroup").glob(f"**/{name}"):
            for folder, _, _ in os.walk(tree, topdown=False):
                _remove(folder)


def _remove(folder: str) -> None:
    """Remove a control group; what was killed in it may still be on its way out."""
    deadline = time.monotonic() + 20 * slack()
    while True:
        try:
            return os.rmdir(folder)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


@pytest.fixture
def farm(new_home: Path, tmp_path: Path) -> Farm:
    """What is deployed, and its history, is of one test."""
    return Farm(new_home, tmp_path)


def on(board: Machine, script: str) -> str:
    """Run a shell script on a board."""
    with contextlib.closing(transports.open(board.entry)) as transport:
        done = transport.run(Command(("sh", "-c", script), timeout_s=60.0))
    assert done.ok, done.text + done.error_text + board.log
    return done.text


def let_it_run(board: Machine) -> None:
    """Tell systemctl, whoever calls it there, that a board of the lab is no chroot to mend."""
    config = board.state / "files/etc/ssh/farm_config"
    config.write_text(config.read_text() + "SetEnv SYSTEMD_IGNORE_CHROOT=1\n")
    board.restart_daemon()


def boot_manager(board: Machine) -> None:
    on(board, _MANAGER.format(group=board.network.namespace))


def served(board: Machine) -> list[int]:
    """Processes that keep a model loaded."""
    return [pid for pid, words in board.processes().items() if "--serve" in words]


def test_a_service_is_up_after_a_crash_and_a_boot_and_goes_with_its_deployment(
    farm: Farm, groups: list[str], ssh_device: Callable[..., Machine]
) -> None:
    board = ssh_device()
    groups.append(board.network.namespace)
    let_it_run(board)
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, [board], local=False)
    quick = ("--cluster", "none", "--live", "off", "--quick", "-i", str(inventory))
    done = farm("run", str(CONFIGS / "tiny.yaml"), *quick, "--set", "gates={}")
    assert done.returncode == 0, done.stdout + done.stderr
    deploy = (
        "deploy", "latest", "--to", "transport=ssh", "-i", "lab.yaml", "--name", "kiosk",
        "--service",
    )  # fmt: skip
    # Without a manager it is refused before anything changes.
    done = farm(*deploy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "--service needs a systemd user manager" in done.stdout + done.stderr
    assert list(board.disk.glob("**/farm/deployments/kiosk/current")) == []

    boot_manager(board)
    done = farm(*deploy)
    assert done.returncode == 0, done.stdout + done.stderr

    def chat() -> tuple[bool, list[int]]:
        said = farm(
            "chat", "kiosk", "--on", board.name, "-i", "lab.yaml", "--prompt", "Hello",
            "--max-new-tokens", "8", "--json",
        )  # fmt: skip
        assert said.returncode == 0, said.stdout + said.stderr
        reply = json.loads(said.stdout)
        return reply["service"], reply["ids"]

    first = chat()
    assert first[0] is True
    # It crashes: its manager starts it again, and status has nothing to complain of.
    (crashed,) = served(board)
    os.kill(crashed, signal.SIGKILL)
    until(lambda: served(board) not in ([], [crashed]), 60 * slack())
    until(lambda: "active" in on(board, _STATE), 60 * slack())
    assert chat() == first
    status = ("deployments", "status", "-i", "lab.yaml")
    done = farm(*status)
    assert done.returncode == 0, done.stdout + done.stderr
    # The board is switched off and on: it starts by itself, before anybody asks for it.
    board.restart()
    assert served(board) == []
    boot_manager(board)
    until(lambda: bool(served(board)), 60 * slack())
    assert chat() == first

    # One that crashes between switch and check is not taken for healthy.
    request = begin.DeployRequest(
        run="latest", to="transport=ssh", out=farm.cwd / "runs", inventory=inventory,
        name="kiosk", service=True,
    )  # fmt: skip
    planned = begin.plan(request, farm.home)
    fleet = Fleet(farm.home, planned.saved, {board.name: board})
    version = planned.saved.assigned[0].manifest.version

    def crash() -> None:
        (pid,) = served(board)
        os.kill(pid, signal.SIGKILL)
        until(lambda: served(board) not in ([], [pid]), 60 * slack())

    saved = replace(fleet.version("crashes", board.name), service=True)
    finished = fleet.roll(saved, {("before", "check", board.name): crash})
    assert finished.outcome == "rolled_back", finished
    assert "restarted 1 times since the switch" in finished.failures[0][1]
    assert fleet.current(board.name) == version
    assert chat() == first

    # A service that is down is an alarm, and chat says why there is no answer.
    on(board, f"{_ENTER} systemctl --user stop farm-kiosk")
    done = farm(*status)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "its service is inactive" in done.stderr

    done = farm(
        "deployments", "remove", "kiosk", "--all", "--to", "transport=ssh", "-i", "lab.yaml"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert served(board) == []
    assert list(board.disk.glob(".config/systemd/user/**/*farm-kiosk*")) == []
