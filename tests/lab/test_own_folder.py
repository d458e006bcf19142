"""farm's folder on a device is its own: what somebody else may have put there isn't run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farm.core.errors import DeviceUnfit
from farm.paths import farm_home
from farm.site.device.connection import Connection
from tests.lab.host import sh
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]


@contextmanager
def connected(machine: Machine) -> Iterator[Connection]:
    connection = Connection(machine.entry, farm_home())
    try:
        yield connection
    finally:
        connection.close()


def plant(machine: Machine) -> tuple[Path, str]:
    """Put a program of the right size in the helper's place; its path, and the helper's."""
    with connected(machine) as connection:
        path = connection.helper.path
    helper = machine.host_path(path)
    text = b"#!/bin/sh\necho planted > /root/planted\necho '{}'\n"
    helper.write_bytes(text + b"#" * (helper.stat().st_size - len(text)))
    helper.chmod(0o755)
    return helper, path


def refused(machine: Machine, why: str) -> None:
    with connected(machine) as connection, pytest.raises(DeviceUnfit, match=why) as caught:
        connection.helper.version()
    assert "set `root`" in caught.value.message
    assert not machine.host_path("/root/planted").exists()


def test_a_folder_of_our_own_is_used_again(ssh_device: Factory) -> None:
    board = ssh_device()
    for _ in range(2):
        with connected(board) as connection:
            connection.helper.version()
            root = board.host_path(connection.helper.root)
    assert root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_is_refused(ssh_device: Factory, mode: int) -> None:
    board = ssh_device()
    helper, _ = plant(board)
    helper.parent.chmod(mode)
    refused(board, "may be written by others")


def test_what_somebody_put_in_the_helpers_place_is_pushed_anew(ssh_device: Factory) -> None:
    """Of the right name and size, by us or by another user: it is never run."""
    board = ssh_device()
    for owner in (0, 4711):
        helper, _ = plant(board)
        os.chown(helper, owner, owner)
        with connected(board) as connection:
            connection.helper.version()
        assert not board.host_path("/root/planted").exists()
        assert helper.stat().st_uid == 0
        assert not helper.read_bytes().startswith(b"#!")


def test_a_helper_is_read_back_where_nothing_can_hash_it(adb_device: Factory) -> None:
    phone = adb_device(only=("sh", "cat", "chmod", "mv", "mkdir"))
    helper, _ = plant(phone)
    with connected(phone) as connection:
        connection.helper.version()
    assert not helper.read_bytes().startswith(b"#!")
    inode = helper.stat().st_ino
    with connected(phone) as connection:
        connection.helper.version()
    assert helper.stat().st_ino == inode, "one that is as it should be stays"


def test_a_folder_below_one_that_everybody_may_write_is_refused(ssh_device: Factory) -> None:
    board = ssh_device()
    helper, _ = plant(board)
    parent = helper.parent.parent
    parent.chmod(0o777)
    refused(board, r"lies below /root/\.cache, which everybody may write")
    parent.chmod(0o1777)  # only its owner may move what lies there
    with connected(board) as connection:
        connection.helper.version()


def test_a_folder_from_which_nothing_may_be_run_has_a_remedy(ssh_device: Factory) -> None:
    board = ssh_device()
    mounted = board.state / "boot/root" / board.userland.disk_at.strip("/")
    options = ("-o", "remount,bind,noexec", mounted)
    sh("nsenter", "-t", str(min(board.network.pids())), "-m", "mount", *options)
    with connected(board) as connection, pytest.raises(DeviceUnfit, match="noexec") as caught:
        connection.helper.version()
    assert "set `root` of the device in the inventory" in str(caught.value.context["remedy"])


def test_a_folder_of_another_user_is_refused(ssh_device: Factory) -> None:
    board = ssh_device()
    helper, _ = plant(board)
    os.chown(helper.parent, 4711, 4711)
    refused(board, "belongs to another user")


def test_a_link_is_refused(ssh_device: Factory) -> None:
    board = ssh_device()
    helper, path = plant(board)
    folder = helper.parent
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(Path(path).parent.with_name("elsewhere"))
    refused(board, "is a symbolic link")


def test_a_folder_that_somebody_made_before_us_is_refused(ssh_device: Factory) -> None:
    board = ssh_device()
    folder = board.host_path("/root/.cache/farm")
    folder.mkdir(parents=True)
    os.chown(folder, 4711, 4711)
    refused(board, "belongs to another user")


def test_a_phones_folder_is_its_own(adb_device: Factory) -> None:
    phone = adb_device()
    with connected(phone) as connection:
        connection.helper.version()
        root = connection.helper.root
    phone.host_path(root).chmod(0o777)
    with connected(phone) as connection, pytest.raises(DeviceUnfit, match="written by others"):
        connection.helper.version()
