"""Files that are written whole, and the lock of those who change them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from farm.files import locked, write_whole


def test_replaces_with_the_mode_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    write_whole(path, "nëu\n", mode=0o600)
    assert path.read_bytes() == "nëu\n".encode()
    assert path.stat().st_mode & 0o777 == 0o600
    write_whole(path, b"\0\n")
    assert path.read_bytes() == b"\0\n"
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_old_file_survives_a_write_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("farm.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), path.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
