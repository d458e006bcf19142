"""Damaged requests and programs: each is read as what it is, and nothing hangs or stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.build.cache import NativeBuild

from .fuzz import Target, fuzz, good_request

pytestmark = pytest.mark.export


def test_damaged_input_is_a_finished_run_or_an_error_of_its_own(
    build: NativeBuild, tiny: Path, tmp_path: Path
) -> None:
    target = Target(build, (tiny / "last.pte").read_bytes(), good_request())
    found = fuzz(target, 150, 5, tmp_path)
    assert sum(found.values()) == 150
    assert found["request: error line"] > 30
    assert found["program: error line"] > 20
