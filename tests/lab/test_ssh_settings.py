"""~/.ssh/config as people have it, agents and certificates, against a real sshd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.device import DeviceEntry
from farm.core.errors import ConnectError
from farm.transports.ssh import fingerprint, route, trust
from tests.lab.board import user_key
from tests.lab.host import sh
from tests.lab.machine import Machine
from tests.lab.ssh_user import hostname

pytestmark = pytest.mark.lab

V6 = "fd00:19::2"


def host_line(board: Machine, *names: str) -> str:
    key = Path(board.entry.known_hosts or "").read_text().split(maxsplit=1)[1]
    return "".join(f"{name} {key}" for name in names)


@contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[str]:
    """An agent that holds these keys; its socket."""
    path = str(folder / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(path):
            time.sleep(0.01)
        for key in keys:
            sh("env", f"SSH_AUTH_SOCK={path}", "ssh-add", "-q", key)
        yield path
    finally:
        process.terminate()
        process.wait()


def new_key(path: Path, *words: str) -> Path:
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path, *words)
    return path


def test_includes_matches_proxies_and_addresses(board: Machine, home: Path) -> None:
    folder = home / ".ssh"
    (folder / "known").write_text(host_line(board, "racks"))
    (folder / "team.conf").write_text(
        f"Match originalhost rack*\n  HostName {board.address}\n  User root\n  Port ssh\n"
        f"  IdentityFile {user_key()}\n  HostKeyAlias racks\n"
        f"  UserKnownHostsFile {folder}/known\n"
    )
    config = folder / "config"
    config.write_text(
        f"Include {folder}/*.conf\n"
        f"Host rack3\n  ProxyCommand python3 {folder}/relay.py %h %p\n"
        "Host rack4\n  ProxyCommand echo no route to the rack >&2; exit 3\n"
        "Host rack5\n  AddressFamily inet6\n"
    )
    (folder / "relay.py").write_text(
        "import os, select, socket, sys\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "while True:\n"
        "    for f in select.select([0, s], [], [])[0]:\n"
        "        data = os.read(0, 65536) if f == 0 else s.recv(65536)\n"
        "        if not data: sys.exit()\n"
        "        s.sendall(data) if f == 0 else os.write(1, data)\n"
    )
    for name in ("rack1", "rack3"):
        assert hostname(DeviceEntry("d", "ssh", host=name)) == board.name
    with pytest.raises(ConnectError, match="ProxyCommand: no route to the rack"):
        hostname(DeviceEntry("d", "ssh", host="rack4"))
    with pytest.raises(ConnectError, match="no such host"):  # it has an IPv4 address only
        hostname(DeviceEntry("d", "ssh", host="rack5"))
    assert not [p for p in board.processes().values() if "relay.py" in " ".join(p)]


def test_a_jump_over_ipv6_and_the_keys_of_every_hop(board: Machine, home: Path) -> None:
    """`trust` asks one host after the other: behind an unknown one nothing can be asked."""
    namespace, number = board.network.namespace, board.slot.number
    sh("ip", "-n", namespace, "addr", "add", f"{V6}/64", "dev", "eth0", "nodad")
    outside = re.search(r"\d+: (\w+)@.*link-netns " + namespace, sh("ip", "-o", "link"))
    assert outside is not None, number
    sh("ip", "addr", "add", "fd00:19::1/64", "dev", outside[1], "nodad")
    (home / ".ssh/config").write_text(
        f"Host *\n  IdentityFile {user_key()}\n"
        f"Host inner\n  HostName 127.0.0.1\n  User root\n  ProxyJump root@[{V6}]:22\n"
    )
    entry = DeviceEntry("through", "ssh", host="inner")
    with pytest.raises(ConnectError, match=f"host key of {V6} is unknown"):
        hostname(entry)
    seen = []
    for place in route(entry):
        key = fingerprint(entry, place)
        seen.append((key.host, key.standing))
        trust(entry, key)
    assert seen == [(V6, "unknown"), ("127.0.0.1", "unknown")]
    assert hostname(entry) == board.name
    bracketed = DeviceEntry("d", "ssh", host=f"[{V6}]", user="root")
    assert hostname(bracketed) == board.name


def test_the_agents_key_that_is_named_comes_first(
    board: Machine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its public half, or by a private one whose passphrase only the agent was told."""
    right = home / "right"
    shutil.copy(user_key(), right)
    others = [new_key(home / f"k{number}") for number in range(7)]
    plain = replace(board.entry, identity=None)
    with agent(home, *others, right) as socket:
        sh("ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", right)
        right.with_name("right.pub").write_text(user_key().with_suffix(".pub").read_text())
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        with pytest.raises(ConnectError, match="its MaxAuthTries") as caught:
            hostname(plain)
        assert "its public half where an agent holds the key" in caught.value.message
        for name in (right, right.with_name("right.pub")):
            assert hostname(replace(plain, identity=str(name))) == board.name
        monkeypatch.delenv("SSH_AUTH_SOCK")
        (home / ".ssh/config").write_text(
            f"Host *\n  IdentityAgent {socket}\n  IdentityFile {right}.pub\n  IdentitiesOnly yes\n"
        )
        assert hostname(plain) == board.name
        (home / ".ssh/config").write_text(
            f"Host *\n  IdentityAgent none\n  IdentityFile {right}.pub\n  IdentitiesOnly yes\n"
        )
        with pytest.raises(ConnectError, match="no agent holds its private one"):
            hostname(plain)


def test_a_certificate_of_a_key_lets_us_in(board: Machine, home: Path) -> None:
    authority, mine = new_key(home / "ca"), new_key(home / "mine")
    sh("ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", "root", f"{mine}.pub")
    line = f"cert-authority {(home / 'ca.pub').read_text()}"
    board.set_file("etc/ssh/farm_authorized_keys", line, 0o600)
    board.restart_daemon()
    entry = replace(board.entry, identity=str(mine))
    assert hostname(entry) == board.name
    (home / "mine-cert.pub").rename(home / "elsewhere-cert.pub")
    with pytest.raises(ConnectError, match="accepts none of our keys"):
        hostname(entry)
    (home / ".ssh/config").write_text(f"Host *\n  CertificateFile {home}/elsewhere-cert.pub\n")
    assert hostname(entry) == board.name
