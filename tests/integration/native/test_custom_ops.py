"""Our kernels against the operators of libcustom_ops_aot_lib, in one process with torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runners.build import SOURCES
from runners.compiler import compile_objects, find_compiler, host_abi, link

pytestmark = pytest.mark.export


def test_custom_sdpa_equals_torchs_operator(tmp_path: Path) -> None:
    compiler = find_compiler(host_abi())
    driver = Path(__file__).parents[2] / "unit" / "native" / "kernel_driver.cpp"
    kernels = [path for path in (SOURCES / "kernels").glob("*.cpp") if path.stem != "operators"]
    flags = ("-O3", "-fno-math-errno", f"-I{SOURCES}")
    program = tmp_path / "kernel-driver"
    link(compiler, compile_objects(compiler, [*kernels, driver], flags, tmp_path), (), program)
    script = Path(__file__).with_name("compare_operators.py")
    done = subprocess.run(
        [sys.executable, str(script), str(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert verdict["shapes"] == 500
    assert verdict["max_abs_error"] <= 1e-4
