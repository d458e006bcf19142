"""Boards that let people in their own way: other servers, one kind of key, one try, one user."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.errors import ConnectError
from farm.transports import open as open_transport
from tests.lab.board import user_key
from tests.lab.host import find, sh
from tests.lab.machine import Machine
from tests.lab.ssh_user import hostname
from tests.lab.test_ssh_settings import agent, host_line, new_key
from tests.lab.test_ssh_shells import use_config, works

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]
V6 = "fd00:fa12::2"


def test_a_board_with_dropbear_will_do(ssh_device: Factory, tmp_path: Path) -> None:
    """Routers and small images have it: no SFTP, other ciphers, its own limits."""
    if find("dropbear") is None or find("dropbearconvert") is None:
        pytest.skip("dropbear isn't installed: run tests/lab/install.sh")
    board = ssh_device(server="dropbear")
    works(board, tmp_path)
    data = os.urandom(5 << 20)
    (tmp_path / "large").write_bytes(data)
    transport = open_transport(board.entry)
    try:
        transport.push(tmp_path / "large", "/root/large")
        assert board.host_path("/root/large").read_bytes() == data
    finally:
        transport.close()


def test_two_tries_are_enough_for_the_named_key(board: Machine, home: Path) -> None:
    """MaxAuthTries 2: whoever offers every key of an agent first is thrown out."""
    use_config(board, "MaxAuthTries 2")
    others = [new_key(home / f"k{number}") for number in range(3)]
    with agent(home, *others, user_key()) as socket:
        pub = home / "right.pub"
        pub.write_text(user_key().with_suffix(".pub").read_text())
        (home / ".ssh/config").write_text(f"Host *\n  IdentityAgent {socket}\n")
        assert hostname(board.entry) == board.name
        assert hostname(replace(board.entry, identity=str(pub))) == board.name
        with pytest.raises(ConnectError, match="its MaxAuthTries"):
            hostname(replace(board.entry, identity=None))


def test_a_user_who_is_not_allowed_is_told_what_may_be_wrong(board: Machine) -> None:
    use_config(board, "AllowUsers somebody")
    with pytest.raises(ConnectError, match="accepts none of our keys") as caught:
        hostname(board.entry)
    assert "AllowUsers" in caught.value.message


def test_a_board_that_wants_a_password_is_refused_with_the_remedy(board: Machine) -> None:
    use_config(board, "PubkeyAuthentication no\nPasswordAuthentication yes")
    with pytest.raises(ConnectError) as caught:
        hostname(board.entry)
    assert "password" in caught.value.message
    assert "ssh-copy-id" in caught.value.message


def test_a_board_with_an_ipv6_address_alone_will_do(
    board: Machine, home: Path, tmp_path: Path
) -> None:
    sh("ip", "-n", board.network.namespace, "addr", "add", f"{V6}/64", "dev", "eth0", "nodad")
    sh("ip", "addr", "add", "fd00:fa12::1/64", "dev", board.network.link, "nodad")
    board.network.address = V6  # what is waited for
    use_config(board, f"ListenAddress {V6}")
    known = home / "known"
    known.write_text(host_line(board, V6))
    entry = replace(board.entry, host=V6, known_hosts=str(known))
    assert hostname(entry) == board.name
    with pytest.raises(ConnectError, match="nothing listens on port 22"):
        hostname(board.entry)
    transport = open_transport(entry)
    try:
        (tmp_path / "file").write_bytes(b"x" * 100_000)
        transport.push(tmp_path / "file", "/root/file")
        assert transport.run(Command(("wc", "-c", "/root/file"))).text.split()[0] == "100000"
    finally:
        transport.close()
