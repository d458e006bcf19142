"""The cache of native builds where it can only be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from runners.build.cache import NativeBuild, cached, entry


def made(folder: Path) -> NativeBuild:
    program = folder / "farm-helper"
    program.write_bytes(b"program")
    file = entry("farm-helper", program, 0o700)
    return NativeBuild(
        "farm-helper", "x86_64", "1", "x86-64-v2", "static", "k" * 64, "", ("./farm-helper",), (),
        (file,),
    )  # fmt: skip


def test_a_build_in_a_cache_that_is_read_only_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached(tmp_path, "farm-helper", "x86_64", "k" * 64, made, None)

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)

    def never(_folder: Path) -> NativeBuild:
        raise AssertionError("it was built again")

    assert cached(tmp_path, "farm-helper", "x86_64", "k" * 64, never, None) == first
