"""A cancelled build ends its compilers at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runners.build.compiler import compile_objects, find_compiler, host_abi


class Cancelled(Exception):
    """What the listener of a build raises."""


def test_cancel_ends_running_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\ncase "$*" in *-c*) sleep 60;; *) exec g++ "$@";; esac\n')
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    sources = [tmp_path / f"{name}.cpp" for name in "abc"]
    for source in sources:
        source.write_text("int main() {}\n")

    def cancelled() -> None:
        raise Cancelled

    started = time.monotonic()
    with pytest.raises(Cancelled):
        compile_objects(find_compiler(host_abi()), sources, (), tmp_path, cancelled)
    assert time.monotonic() - started < 10
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        assert str(slow).encode() not in words
