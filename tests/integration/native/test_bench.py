"""`farm bench` on a real .pte: small vocabularies, external weights, no PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.command import SOURCES, Farm

pytestmark = pytest.mark.export

#: Ends the command with exit code 9 when PyTorch or Ray was imported on the way.
_WITHOUT_TORCH = """
import sys
from farm.cli import main
try:
    main()
except SystemExit as end:
    sys.exit(9 if {"torch", "ray", "executorch"} & set(sys.modules) else end.code)
"""


@pytest.fixture
def farm_here(tmp_path: Path) -> Farm:
    """The farm command with a FARM_HOME of its own that has the native builds."""
    return Farm(tmp_path / "home", tmp_path)


def bench(farm: Farm, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, "bench", "-p", "16", "-n", "4", "--json", *words],
        capture_output=True,
        text=True,
        cwd=farm.cwd,
        env={**farm.environment, "PYTHONPATH": str(SOURCES)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def test_a_small_vocabulary_and_external_weights(farm_here: Farm, tiny: Path) -> None:
    inside = bench(farm_here, str(tiny / "last.pte"))
    started = time.monotonic()
    outside = bench(farm_here, str(tiny / "external.pte"), "--data", str(tiny / "weights.ptd"))
    assert time.monotonic() - started < 60, "a device that has the runner answers in a minute"
    for found in (inside, outside):
        medians = {p["metric"]: p["median"] for p in found["performance"]}
        assert medians["pp16"] > 0
        assert medians["tg4"] > 0
        assert found["memory"]["peak_rss_bytes"] > 1 << 20


@pytest.mark.parametrize("name", ["positions", "ring", "two"])
def test_programs_as_others_export_them(name: str, farm_here: Farm, tiny: Path) -> None:
    medians = {
        row["metric"]: row["median"]
        for row in bench(farm_here, str(tiny / f"{name}.pte"))["performance"]
    }
    assert medians["pp16"] > 0
    assert medians["tg4"] > 0


def test_missing_files_are_named(farm_here: Farm, tiny: Path) -> None:
    done = farm_here("bench", str(tiny / "external.pte"), "--data", "nowhere.ptd")
    assert done.returncode == 2
    assert "nowhere.ptd: there is no such file" in done.stderr
    done = farm_here("bench", str(tiny / "external.pte"), "-p", "16", "-n", "4")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
