"""Boards and phones whose programs are of another age: busybox of 2019 and 2024, older toybox."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.paths import farm_home
from farm.site.device.connection import Connection
from tests.lab.host import LabError, sh
from tests.lab.machine import Machine
from tests.lab.roots import package_root
from tests.lab.test_ssh_shells import supervises, use_config, use_shell, works

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]


def unpacked(suite: str, package: str) -> Path:
    try:
        return package_root(suite, package)
    except LabError as error:
        pytest.skip(f"this machine's apt has no {package} of {suite}: {error}")


@pytest.mark.parametrize("suite", ["bullseye", "trixie"])
def test_a_board_that_has_busybox_alone_will_do(
    ssh_device: Factory, tmp_path: Path, suite: str
) -> None:
    program = unpacked(suite, "busybox-static") / "bin/busybox"
    board = ssh_device()
    folder = board.state / "files/min"
    folder.mkdir()
    shutil.copy(program, folder / "busybox")
    for applet in sh(program, "--list").split():
        if applet != "busybox":
            (folder / applet).symlink_to("busybox")
    use_config(board, "SetEnv PATH=/min")
    use_shell(board, "/min/sh")
    works(board, tmp_path)
    supervises(Connection(board.entry, farm_home()), board)


def test_a_phone_with_an_older_toybox_will_do(adb_device: Factory) -> None:
    """The lab's phones have trixie's; their adbd starts every program through it."""
    program = unpacked("bookworm", "toybox") / "usr/bin/toybox"
    phone = adb_device()
    target = phone.state / "files/usr/bin/toybox"
    target.parent.mkdir(parents=True)
    shutil.copy(program, target)
    phone.restart()
    connection = Connection(phone.entry, farm_home())
    assert connection.snapshot().facts.cores
    supervises(connection, phone)
