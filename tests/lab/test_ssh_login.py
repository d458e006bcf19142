"""Getting in to a real sshd: host keys, user keys, jump hosts, the user's config."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.device import DeviceEntry
from farm.core.errors import ConnectError
from farm.transports import open as open_transport
from farm.transports.ssh import fingerprint, trust
from farm.transports.ssh_config import resolve
from farm.transports.ssh_login import log_in
from tests.lab.board import new_host_key, user_key
from tests.lab.host import sh
from tests.lab.machine import Machine
from tests.lab.ssh_user import hostname
from tests.pace import slack

pytestmark = pytest.mark.lab


def unknown(machine: Machine) -> DeviceEntry:
    return replace(machine.entry, known_hosts=None)


def test_an_unknown_host_key_is_refused_until_somebody_trusts_it(board: Machine) -> None:
    entry = unknown(board)
    shown = fingerprint(entry)
    assert shown.standing == "unknown"
    printed = sh("ssh-keygen", "-lf", board.state / "files/etc/ssh/farm_host_key.pub")
    assert shown.fingerprint in printed
    with pytest.raises(ConnectError) as caught:
        hostname(entry)
    assert shown.fingerprint in caught.value.message
    assert f"farm devices trust {entry.name}" in caught.value.message
    assert trust(entry, shown) == shown
    assert hostname(entry) == board.name
    assert fingerprint(entry).standing == "trusted"


def test_a_changed_host_key_is_refused_until_somebody_trusts_it(board: Machine, home: Path) -> None:
    entry = unknown(board)
    trust(entry)
    assert hostname(entry) == board.name
    new_host_key(board)
    board.restart_daemon()
    with pytest.raises(ConnectError, match="HAS CHANGED") as caught:
        hostname(entry)
    assert "farm/known_hosts" in caught.value.message
    assert caught.value.context["host_key"] == "changed"
    assert fingerprint(entry).standing == "changed"
    trust(entry)
    assert hostname(entry) == board.name
    assert len((home / "farm/known_hosts").read_text().splitlines()) == 1


def test_keys_that_nobody_accepts_are_listed(board: Machine, home: Path) -> None:
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".ssh/id_ed25519")
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", home / "locked")
    entry = replace(board.entry, identity=str(home / "locked"))
    with pytest.raises(ConnectError) as caught:
        hostname(entry)
    message = caught.value.message
    assert f"{home / 'locked'} has a passphrase: load it with ssh-add" in message
    assert f"{home / '.ssh/id_ed25519'}" in message
    assert "ssh-copy-id" in message
    with pytest.raises(ConnectError, match="nothing-here doesn't exist"):
        hostname(replace(board.entry, identity=str(home / "nothing-here")))


def test_the_usual_key_file_is_found(board: Machine, home: Path) -> None:
    shutil.copy(user_key(), home / ".ssh/id_ed25519")
    assert hostname(replace(board.entry, identity=None)) == board.name


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert process.poll() is None
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield
    finally:
        process.terminate()
        process.wait()


def test_the_agent_is_asked(board: Machine, agent: None) -> None:
    sh("env", f"SSH_AUTH_SOCK={os.environ['SSH_AUTH_SOCK']}", "ssh-add", "-q", user_key())
    assert hostname(replace(board.entry, identity=None)) == board.name


def test_the_user_s_config_and_jump_hosts_are_used(board: Machine, home: Path) -> None:
    (home / ".ssh/config").write_text(
        f"Host gate\n  HostName {board.address}\n  User root\n  IdentityFile {user_key()}\n"
        # This address is the board only for somebody who is on the board.
        f"Host inner\n  HostName 127.0.0.1\n  User root\n  ProxyJump gate\n"
        f"  IdentityFile {user_key()}\n  HostKeyAlias the-inner\n"
    )
    line = Path(board.entry.known_hosts or "").read_text()
    inner = line.replace(board.address, "the-inner")
    (home / ".ssh/known_hosts").write_text(line + inner)
    entry = DeviceEntry("through", "ssh", host="inner")
    assert hostname(entry) == board.name
    assert fingerprint(entry).standing == "trusted"
    (home / ".ssh/known_hosts").write_text(inner)
    with pytest.raises(ConnectError, match=f"host key of {board.address} is unknown"):
        hostname(entry)
    (home / ".ssh/known_hosts").write_text(line)
    with pytest.raises(ConnectError, match="host key of the-inner is unknown"):
        hostname(entry)


def test_a_host_that_the_jump_host_cannot_reach_is_named(board: Machine, home: Path) -> None:
    (home / ".ssh/config").write_text(
        f"Host inner\n  HostName 127.0.0.1\n  Port 2222\n  ProxyJump root@{board.address}\n"
        f"Host *\n  IdentityFile {user_key()}\n"
    )
    entry = DeviceEntry("through", "ssh", host="inner", known_hosts=board.entry.known_hosts)
    with pytest.raises(ConnectError, match=r"the jump host before it can't connect to it"):
        hostname(entry)


def test_places_without_an_sshd_say_what_is_wrong(board: Machine) -> None:
    closed = replace(board.entry, port=2222)
    with pytest.raises(ConnectError, match="nothing listens on port 2222: is sshd running"):
        hostname(closed)
    nowhere = replace(board.entry, host="no-such-host.invalid")
    with pytest.raises(ConnectError, match="no such host: check its name"):
        hostname(nowhere)
    board.network.partition()
    started = time.monotonic()
    with pytest.raises(ConnectError, match="no answer: is it on"):
        hostname(board.entry)
    assert time.monotonic() - started < 10 + 4 * slack()


def test_the_fast_cipher_is_agreed_on(board: Machine) -> None:
    transport = open_transport(board.entry)
    try:
        assert transport.run(Command(("true",))).ok
        login = transport._login  # type: ignore[attr-defined]
        assert login.transport.remote_cipher == "aes128-gcm@openssh.com"
    finally:
        transport.close()


def test_the_connection_is_a_fast_one(board: Machine) -> None:
    """The quick cipher first, small packets at once, and a dead peer noticed by the kernel."""
    login = log_in(board.entry, resolve(board.entry), lambda _link: None)
    try:
        assert login.transport.local_cipher == "aes128-gcm@openssh.com"
        sock = login.link._sock
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    finally:
        login.close()
