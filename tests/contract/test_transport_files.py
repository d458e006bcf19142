"""Files: what every transport must do alike. Programs used on the device: sh, cat and chmod."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.errors import StorageFull, StoreError, TransferError
from tests.contract.devices import ContractDevice, shell

MIB = 1 << 20
NASTY_NAMES = (
    "a b", "it's", '"', "$(id)", "`id`", "new\nline", "-rf", "*", "\\", "漢字", ";x", "#x",
)  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 65536, 3 * MIB + 17])
def test_content_survives_push_and_pull(device: ContractDevice, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    transport = device.transport()
    pushed: list[int] = []
    pulled: list[int] = []
    transport.push(tmp_path / "file", device.remote("file"), progress=pushed.append)
    # Compared as files: what a failed == of megabytes would explain takes minutes.
    assert filecmp.cmp(device.host("file"), tmp_path / "file", shallow=False)
    transport.pull(device.remote("file"), tmp_path / "back", max_bytes=size, progress=pulled.append)
    assert filecmp.cmp(tmp_path / "back", tmp_path / "file", shallow=False)
    for counts in (pushed, pulled):
        assert counts == sorted(counts)
        assert counts[-1] == size


def test_a_push_replaces_what_is_there(device: ContractDevice, tmp_path: Path) -> None:
    device.host("file").write_bytes(b"old and longer")
    (tmp_path / "file").write_bytes(b"new")
    device.transport().push(tmp_path / "file", device.remote("file"))
    assert device.host("file").read_bytes() == b"new"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o500])
def test_the_mode_is_what_was_asked_for(device: ContractDevice, tmp_path: Path, mode: int) -> None:
    (tmp_path / "file").write_bytes(b"x")
    transport = device.transport()
    transport.push(tmp_path / "file", device.remote("file"), mode=mode)
    assert device.host("file").stat().st_mode & 0o7777 == mode
    found = transport.stat(device.remote("file"))
    assert found is not None
    assert found.mode == mode


def test_a_pushed_program_runs(device: ContractDevice, tmp_path: Path) -> None:
    (tmp_path / "program").write_text('#!/bin/sh\necho "got $1"\n')
    transport = device.transport()
    transport.push(tmp_path / "program", device.remote("program"), mode=0o700)
    assert transport.run(Command((device.remote("program"), "this"))).stdout == b"got this\n"


def test_a_push_goes_on_at_an_offset(device: ContractDevice, tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)
    (tmp_path / "file").write_bytes(data)
    device.host("file").write_bytes(data[: MIB + 5])
    counts: list[int] = []
    device.transport().push(
        tmp_path / "file", device.remote("file"), mode=0o640, offset=MIB + 5, progress=counts.append
    )
    assert filecmp.cmp(device.host("file"), tmp_path / "file", shallow=False)
    assert device.host("file").stat().st_mode & 0o7777 == 0o640
    assert counts[-1] == 2 * MIB
    assert counts[0] >= MIB + 5


def test_an_offset_at_the_end_adds_nothing(device: ContractDevice, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"whole")
    device.host("file").write_bytes(b"whole")
    device.transport().push(tmp_path / "file", device.remote("file"), offset=5)
    assert device.host("file").read_bytes() == b"whole"


@pytest.mark.parametrize("there", [None, b"", b"abc"])
def test_an_offset_that_does_not_fit_is_refused(
    device: ContractDevice, tmp_path: Path, there: bytes | None
) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    if there is not None:
        device.host("file").write_bytes(there)
    with pytest.raises(TransferError, match="can't go on at 5"):
        device.transport().push(tmp_path / "file", device.remote("file"), offset=5)


def test_a_missing_folder_is_refused_and_not_made(device: ContractDevice, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    transport = device.transport()
    with pytest.raises(TransferError) as caught:
        transport.push(tmp_path / "file", device.remote("no/file"))
    assert caught.value.device == device.entry.name
    assert not device.host("no").exists()
    assert transport.run(shell("exit 0")).ok


def test_a_full_disk_has_its_own_error(device: ContractDevice, tmp_path: Path) -> None:
    place = device.full_place()
    (tmp_path / "file").write_bytes(os.urandom(2 * MIB))
    transport = device.transport()
    with pytest.raises(StorageFull) as caught:
        transport.push(tmp_path / "file", place)
    assert caught.value.device == device.entry.name
    assert transport.run(shell("exit 0")).ok


def test_stat_tells_size_mode_and_time(device: ContractDevice) -> None:
    path = device.host("file")
    path.write_bytes(b"12345")
    path.chmod(0o640)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    found = device.transport().stat(device.remote("file"))
    assert found is not None
    assert (found.size_bytes, found.mode, found.mtime_s) == (5, 0o640, 1_600_000_000)


def test_stat_follows_links(device: ContractDevice) -> None:
    device.host("file").write_bytes(b"12345")
    device.host("link").symlink_to("file")
    device.host("broken").symlink_to("nothing")
    transport = device.transport()
    found = transport.stat(device.remote("link"))
    assert found is not None
    assert found.size_bytes == 5
    assert transport.stat(device.remote("broken")) is None


def test_stat_of_nothing_is_none(device: ContractDevice) -> None:
    device.host("file").write_bytes(b"x")
    transport = device.transport()
    assert transport.stat(device.remote("nothing")) is None
    assert transport.stat(device.remote("no/thing")) is None
    assert transport.stat(device.remote("file/below")) is None


def test_a_pull_of_nothing_or_of_a_folder_is_refused(
    device: ContractDevice, tmp_path: Path
) -> None:
    transport = device.transport()
    with pytest.raises(TransferError, match="No such file"):
        transport.pull(device.remote("nothing"), tmp_path / "back", max_bytes=10)
    with pytest.raises(TransferError):
        transport.pull(device.folder, tmp_path / "back", max_bytes=1 << 30)


def test_a_pull_of_an_endless_file_is_refused(device: ContractDevice, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="regular file"):
        device.transport().pull("/dev/zero", tmp_path / "back", max_bytes=10)


def test_a_pull_beyond_its_bound_is_refused(device: ContractDevice, tmp_path: Path) -> None:
    device.host("file").write_bytes(b"123456")
    transport = device.transport()
    with pytest.raises(TransferError, match="larger than 5 bytes"):
        transport.pull(device.remote("file"), tmp_path / "back", max_bytes=5)
    transport.pull(device.remote("file"), tmp_path / "back", max_bytes=6)
    assert (tmp_path / "back").read_bytes() == b"123456"


def test_trouble_of_this_host_is_not_the_device_s(device: ContractDevice, tmp_path: Path) -> None:
    device.host("file").write_bytes(b"x")
    transport = device.transport()
    with pytest.raises(StoreError, match="can't read"):
        transport.push(tmp_path / "nothing", device.remote("new"))
    with pytest.raises(StoreError, match="can't write"):
        transport.pull(device.remote("file"), tmp_path / "no" / "back", max_bytes=10)


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_file_names_are_taken_as_they_are(
    device: ContractDevice, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    transport = device.transport()
    transport.push(tmp_path / "file", device.remote(name), mode=0o640)
    assert device.host(name).read_bytes() == b"content"
    found = transport.stat(device.remote(name))
    assert found is not None
    assert found.mode == 0o640
    transport.pull(device.remote(name), tmp_path / "back", max_bytes=100)
    assert (tmp_path / "back").read_bytes() == b"content"


def test_the_root_is_an_absolute_path(device: ContractDevice) -> None:
    root = device.transport().default_root()
    assert root.startswith("/")
    assert root.endswith(("/farm", "/device", f"/sim/{device.entry.name}"))
