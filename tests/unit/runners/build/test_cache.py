"""The cache of native builds: where it can only be read, and where two want the same build."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
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


def test_of_two_that_want_a_build_one_makes_it_and_both_say_so(tmp_path: Path) -> None:
    built: list[Path] = []
    said: list[str] = []
    waits = threading.Event()

    def tell(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            waits.set()

    def make(folder: Path) -> NativeBuild:
        built.append(folder)
        assert waits.wait(10), "the other one says nothing while it waits"
        return made(folder)

    words = ("farm-helper", "x86_64", "k" * 64, make, tell)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(cached, tmp_path, *words) for _ in range(2)]
        first, second = (one.result(30) for one in both)
    assert first == second
    assert len(built) == 1
    assert said == ["building farm-helper for x86_64"] * 2
