"""Login shells and users that boards have: what they print before us must not matter."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from farm.clock import Deadline
from farm.core.command import Command
from farm.core.errors import ConnectError, DeviceLost, FarmError
from farm.core.lease import LeaseOwner
from farm.paths import farm_home
from farm.site.device.connection import Connection
from farm.transports import open as open_transport
from farm.transports.ssh import SshTransport
from tests.lab.calls import SPIN, Call
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]
NOISE = {
    "a line": 'echo "Welcome to board 1"\n',
    "a title without an end of line": "printf '\\033]0;board\\007'\n",
    "100 kB": 'yes "a banner of the company" | head -c 100000\n',
    "our mark": "printf 'farm-pid:1:1\\n'\n",
    "errors": 'echo "stty: standard input: Inappropriate ioctl for device" >&2\n',
}


def use_shell(board: Machine, shell: str) -> None:
    """Give the board's root another login shell."""
    rows = (board.state / "files/etc/passwd").read_text().splitlines()
    rows = [f"root:x:0:0:root:/root:{shell}" if row.startswith("root:") else row for row in rows]
    board.set_file("etc/passwd", "\n".join(rows) + "\n")
    board.restart_daemon()


def use_config(board: Machine, line: str) -> None:
    """Put a line before all others of the board's sshd_config: the first of a kind counts."""
    text = (board.state / "files/etc/ssh/farm_config").read_text()
    board.set_file("etc/ssh/farm_config", f"{line}\n{text}", 0o600)
    board.restart_daemon()


def works(board: Machine, folder: Path) -> None:
    """Run, push, pull, look and end a program there, and find exactly what was asked for."""
    data = os.urandom(300_000)
    (folder / "sent").write_bytes(data)
    transport = open_transport(board.entry)
    assert isinstance(transport, SshTransport)
    try:
        odd = Command(("printf", "%s|", "a!b", "it's", "\\x", "$HOME", "ü", "\n"), stdin=b"x")
        assert transport.run(odd).text == "a!b|it's|\\x|$HOME|ü|\n|"
        assert transport.run(Command(("cat",), stdin=data)).stdout == data
        assert transport.run(Command(("sh", "-c", "exit 7"))).exit_code == 7
        transport.push(folder / "sent", "/root/a file", mode=0o640)
        found = transport.stat("/root/a file")
        assert found is not None
        assert (found.size_bytes, found.mode) == (len(data), 0o640)
        assert transport.stat("/root/nothing") is None
        transport.pull("/root/a file", folder / "back", max_bytes=1 << 20)
        assert (folder / "back").read_bytes() == data
        assert transport.default_root() == "/root/.cache/farm"
        with pytest.raises(FarmError, match="didn't end within"):
            transport.run(Command(("sleep", "4242"), timeout_s=2.5))
        ended = Deadline(5.0)  # the kernel takes a moment
        while board.runs("sleep 4242") and not ended.passed:
            time.sleep(0.1)
        assert not board.runs("sleep 4242")
    finally:
        transport.close()


#: Login shells, and what some of them print before anything of ours.
SHELLS = {
    "/bin/sh": None, "/bin/dash": None, "/bin/bash": ".bashrc", "/usr/bin/fish": None,
    "/bin/tcsh": ".cshrc", "/usr/bin/zsh": ".zshenv", "/usr/bin/ash": None,
}  # fmt: skip


def with_shell(board: Machine, shell: str) -> None:
    """Give root this login shell, and a startup file that prints where it reads one."""
    program = _program(shell)
    if program != shell:
        link = board.state / "files" / shell.removeprefix("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(program)
    use_shell(board, shell)
    if startup := SHELLS[shell]:
        (board.state / "disk" / startup).write_text('echo "Welcome to board 1"\n')


def _program(shell: str) -> str:
    return "/bin/busybox" if shell.endswith("/ash") else shell


@pytest.mark.parametrize("shell", SHELLS)
def test_every_login_shell_will_do(ssh_device: Factory, tmp_path: Path, shell: str) -> None:
    if not Path(_program(shell)).exists():
        pytest.skip(f"the lab's boards have this machine's userland, and here is no {shell}")
    board = ssh_device()
    with_shell(board, shell)
    works(board, tmp_path)
    supervises(Connection(board.entry, farm_home()), board)


def test_a_device_that_freezes_is_noticed_whatever_its_shell(
    ssh_device: Factory, adb_device: Factory
) -> None:
    """All at once, as each waits for the same limits: seven login shells, and a phone's."""
    machines = [adb_device(disk_mb=80)]
    for shell in SHELLS:
        if Path(_program(shell)).exists():
            machines.append(ssh_device(disk_mb=80))
            with_shell(machines[-1], shell)
    transports = [open_transport(machine.entry) for machine in machines]
    try:
        assert all(transport.run(Command(("true",))).ok for transport in transports)
        calls = [Call(partial(transport.run, SPIN)) for transport in transports]
        started = Deadline(20.0)
        while not all(machine.runs("sleep 1") for machine in machines):
            assert not started.passed
            time.sleep(0.1)
        for machine in machines:
            machine.freeze()
        frozen = time.monotonic()
        for call, machine in zip(calls, machines, strict=True):
            assert isinstance(call.outcome(frozen), DeviceLost), machine.userland
        for machine in machines:
            machine.thaw()
        for transport in transports:
            assert transport.run(Command(("echo", "back"))).text == "back\n"
    finally:
        for transport in transports:
            transport.close()


def test_a_phones_shell_and_userland_will_do(adb_device: Factory) -> None:
    """mksh and toybox; transports' verbs are those of the contract suite."""
    phone = adb_device()
    supervises(Connection(phone.entry, farm_home()), phone)


def supervises(connection: Connection, machine: Machine) -> None:
    """Start a job that outlives its call, hear from it, and end it with all that it started."""
    helper, lease = connection.helper, LeaseOwner("ann@desk", "run-1", 1)
    try:
        helper.take_lease(lease)
        work = helper.assemble("job", [], lease)
        script = 'echo "$WORD"; sleep 4343 & sleep 4343'
        helper.supervise(
            work,
            ("sh", "-c", script),
            env=(("WORD", "it's 1"),),
            stale_s=30.0,
            max_output_bytes=1000,
            lease=lease,
        )
        polled = helper.poll(work, offset=0, wait_s=5.0, max_bytes=100)
        assert (polled.state, polled.output) == ("running", b"it's 1\n")
        helper.clean("job")
        assert not machine.runs("sleep 4343")
        helper.release_lease(lease)
    finally:
        connection.close()


@pytest.mark.parametrize("noise", NOISE)
def test_what_a_startup_file_prints_does_not_matter(
    ssh_device: Factory, tmp_path: Path, noise: str
) -> None:
    board = ssh_device()
    use_shell(board, "/bin/bash")
    (board.state / "disk/.bashrc").write_text(NOISE[noise])
    works(board, tmp_path)


@pytest.mark.parametrize(
    ("shell", "config", "shown"),
    [
        ("/usr/sbin/nologin", "", "This account is currently not available"),
        ("/bin/false", "", "it printed nothing"),
        ("/bin/true", "", "exit code 0"),
        ("/usr/bin/rbash", "", "restricted"),
        ("/bin/sh", "ForceCommand internal-sftp", "allows sftp connections only"),
        ("/bin/sh", "ForceCommand echo Choose: 1 backup, 2 restore", "Choose: 1 backup, 2 restore"),
        ("/bin/sh", "ForceCommand echo Menu; sleep 60", "Menu"),
    ],
)
def test_a_user_that_runs_nothing_is_named_with_what_the_device_said(
    ssh_device: Factory, shell: str, config: str, shown: str
) -> None:
    board = ssh_device()
    use_shell(board, shell)
    if config:
        use_config(board, config)
    transport = open_transport(board.entry)
    try:
        with pytest.raises(ConnectError, match="ran no command of ours") as caught:
            transport.run(Command(("true",), timeout_s=3.0))
        assert shown in caught.value.message
        assert "chsh" in caught.value.context["remedy"]
    finally:
        transport.close()


def test_one_session_at_a_time_is_enough(ssh_device: Factory, tmp_path: Path) -> None:
    board = ssh_device()
    use_config(board, "MaxSessions 1")
    transport = open_transport(board.entry)
    try:
        assert transport.stat("/root/nothing") is None
        assert transport.run(Command(("true",))).ok
        assert transport.stat("/root") is not None
        assert transport.run(Command(("echo", "two"))).text == "two\n"
    finally:
        transport.close()
