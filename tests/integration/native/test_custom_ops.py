"""Our kernels against the operators of libcustom_ops_aot_lib, in one process with torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runners.build.compiler import find_compiler, host_abi
from tests.unit.native.kernel_problems import TOLERANCE, compile_driver

pytestmark = pytest.mark.export

ROOT = Path(__file__).parents[3]


def _compare(count: int, *command: str, isa: str = "best") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.native.compare_operators", str(count), *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "FARM_ISA": isa},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    verdict: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert verdict["shapes"] >= count
    assert verdict["shapes_int8"] >= count // 3
    assert verdict["max_abs_error"] <= TOLERANCE
    assert verdict["max_abs_error_int8"] <= TOLERANCE
    return verdict


def test_attention_equals_torchs_operators() -> None:
    program = compile_driver(find_compiler(host_abi()))
    assert _compare(600, str(program))["shapes_int8"] >= 200
    assert _compare(100, str(program), isa="portable")["isa"] == "portable"


def test_neon_equals_torchs_operators() -> None:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None or shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("needs qemu-user-static and g++-aarch64-linux-gnu")
    program = compile_driver(find_compiler("arm64-v8a"))
    assert _compare(50, emulator, str(program))["isa"] == "neon"
