"""Our packing of 4-bit weights against XNNPACK's own, byte by byte."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from runners.build.compiler import compile_objects, find_compiler, host_abi, link
from runners.build.native import SOURCES
from runners.build.sdk import installed_sdk
from tests.unit.native.kernel_problems import SANITIZERS

DRIVER = Path(__file__).with_name("packing_driver.cpp")
KERNELS = ("qb4w_pack_avx2", "xnnpack_operator", "xnnpack_packing")

pytestmark = pytest.mark.skipif(
    " avx2 " not in Path("/proc/cpuinfo").read_text(), reason="this CPU has no AVX2"
)


class Shape(NamedTuple):
    inputs: int
    outputs: int
    block: int
    bias: bool
    seed: int


def _shapes() -> list[Shape]:
    draw = random.Random(0)
    small = [
        Shape(block * draw.randint(1, 8), draw.randint(1, 60), block, draw.random() < 0.5, seed)
        for seed in range(300)
        for block in [draw.choice([32, 64, 128, 256])]
    ]
    return [*small, Shape(1536, 1001, 32, True, 1), Shape(576, 4003, 64, False, 2)]


def test_the_bytes_of_xnnpack(tmp_path: Path) -> None:
    """Under sanitizers, with shapes of tiles that are not full."""
    libraries = installed_sdk() / "lib"
    sources = [DRIVER, *(SOURCES / "tuned" / f"{name}.cpp" for name in KERNELS)]
    compiler = find_compiler(host_abi())
    objects = compile_objects(compiler, sources, (*SANITIZERS, f"-I{SOURCES}"), tmp_path)
    search = (f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-Wl,--no-as-needed")
    program = tmp_path / "packing-driver"
    flags = [*SANITIZERS, *search, "-lexecutorch_backend_xnnpack", "-ldl"]
    link(compiler, objects, flags, program)
    shapes = _shapes()
    done = subprocess.run(
        program,
        input="".join(f"{s.inputs} {s.outputs} {s.block} {int(s.bias)} {s.seed}\n" for s in shapes),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},  # XNNPACK keeps what it allocates
    )
    assert done.returncode == 0, done.stderr[-3000:]
    compared = dict(zip(shapes, done.stdout.splitlines(), strict=True))
    assert {shape for shape, verdict in compared.items() if verdict != "1 0"} == set()
