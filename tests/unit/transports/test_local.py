"""What only this machine as a device has: the environment and the words of whoever started farm."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.core.command import Command
from farm.site.parsers.start import diagnose
from farm.transports.local import LocalTransport


def test_what_is_measured_does_not_depend_on_who_started_farm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OTHER"):
        monkeypatch.setenv(name, "1")
    given = Command(("env",), env=(("OMP_NUM_THREADS", "3"),))
    lines = LocalTransport("local", tmp_path).run(given).text.split()
    assert "OTHER=1" in lines
    assert "OMP_NUM_THREADS=3" in lines
    assert not [line for line in lines if line.startswith(("GLIBC_", "MALLOC_"))]


def test_a_folder_where_no_program_runs_is_told_with_the_remedy(tmp_path: Path) -> None:
    program = tmp_path / "farm-helper"
    program.write_bytes(b"#!/bin/sh\n")
    program.chmod(0o600)  # the kernel says the same of a file on a file system with noexec
    done = LocalTransport("local", tmp_path).run(Command((str(program),)))
    trouble = diagnose(done.error_text)
    assert trouble is not None
    assert trouble.kind == "no_execute"
    assert "set FARM_HOME" in trouble.remedy
