"""The product of int8 rows with 4-bit weights, and their packing, against numpy."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runners.compiler import find_compiler, host_abi

from .kernel_problems import SANITIZERS, compile_driver

Number = TypeVar("Number", bound=np.generic)
SOURCE = Path(__file__).with_name("qb4w_driver.cpp")

pytestmark = pytest.mark.skipif(
    " avx2 " not in Path("/proc/cpuinfo").read_text(), reason="this CPU has no AVX2"
)


@dataclass(frozen=True)
class Product:
    rows: int
    columns: int
    blocks: int
    block: int
    extreme: bool = False
    """Activations and weights at the ends of their ranges."""
    seed: int = 0

    def operands(self) -> tuple[bytes, npt.NDArray[np.float64]]:
        """What the driver reads, and what it should answer."""
        draw = np.random.default_rng(self.seed)
        inputs = self.blocks * self.block
        shape = (-(-self.columns // 8) * 8, inputs)
        if self.extreme:
            a = np.full((self.rows, inputs), -128, np.int8)
            weights = np.full(shape, -8, np.int8)
        else:
            a = draw.integers(-128, 128, (self.rows, inputs), np.int8)
            weights = draw.integers(-8, 8, shape, np.int8)
        scales = draw.uniform(0.001, 0.01, (shape[0], self.blocks)).astype(np.float32)
        stored = (scales.view(np.uint32) >> 16).astype(np.uint16)
        scales = (stored.astype(np.uint32) << 16).view(np.float32) * 16
        sums = draw.normal(size=shape[0]).astype(np.float32)
        bias = draw.normal(size=shape[0]).astype(np.float32)
        zeros = draw.integers(-128, 128, self.rows).astype(np.int32)
        steps = draw.uniform(0.001, 0.01, self.rows).astype(np.float32)
        rows = b"".join(struct.pack("<if", *row) for row in zip(zeros, steps, strict=True))
        packed = layout(weights, stored, sums, bias)
        grouped = a.reshape(self.rows, 1, self.blocks, -1).astype(float) * weights.reshape(
            1, shape[0], self.blocks, -1
        )
        exact = (grouped.sum(-1) * scales).sum(-1) + zeros[:, None] * sums.astype(float)
        result = exact * steps.astype(float)[:, None] + bias
        return a.tobytes() + rows + packed, result[:, : self.columns]


def layout(
    weights: npt.NDArray[np.int8],
    scales: npt.NDArray[np.uint16],
    sums: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
) -> bytes:
    """What XNNPACK packs: tiles of eight columns, eight inputs of each side by side.

    Args:
        weights: [columns, inputs], columns a multiple of eight.
        scales: bf16 [columns, blocks].
        sums: [columns].
        bias: [columns].
    """
    blocks = scales.shape[1]
    steps = weights.shape[1] // blocks // 16
    nibbles = (weights.astype(np.uint8) & 15).reshape(-1, 8, blocks, steps, 16)
    pairs = nibbles[..., :8] | nibbles[..., 8:] << 4
    parts = []
    for tile in range(len(nibbles)):
        columns = slice(8 * tile, 8 * tile + 8)
        parts.append(sums[columns].tobytes())
        for block in range(blocks):
            parts.append(pairs[tile, :, block].swapaxes(0, 1).tobytes())
            parts.append(scales[columns, block].tobytes())
        parts.append(bias[columns].tobytes())
    return b"".join(parts)


@dataclass(frozen=True)
class Weights:
    outputs: int
    blocks: int
    block: int
    bias: bool = True
    zero_point: int = 1
    extreme: bool = False
    """Weights at the end of their range, scales of all sizes."""
    seed: int = 0

    def draw(
        self,
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.uint16], npt.NDArray[np.float32]]:
        draw = np.random.default_rng(self.seed)
        shape = (self.outputs, self.blocks * self.block)
        weights = draw.integers(-8, 8, shape, np.int8)
        low, high = 0x3800, 0x3D00
        if self.extreme:
            weights[:] = -8
            low, high = 0x0080, 0x7000  # from the smallest normal number
        scales = draw.integers(low, high, (self.outputs, self.blocks)).astype(np.uint16)
        return weights, scales, draw.normal(size=self.outputs).astype(np.float32)

    def sent(self) -> bytes:
        """What the driver reads."""
        weights, scales, bias = self.draw()
        offset = (weights + 8).astype(np.uint8)
        head = (weights.shape[1], self.outputs, self.block, self.zero_point, int(self.bias))
        pairs = offset[:, ::2] | offset[:, 1::2] << 4
        body = pairs.tobytes() + scales.tobytes() + (bias.tobytes() if self.bias else b"")
        return struct.pack("<5q", *head) + body

    def packed(self) -> npt.NDArray[np.uint8]:
        """What it should answer; what XNNPACK doesn't write stays as it was."""
        weights, scales, bias = self.draw()
        wide = (scales.astype(np.uint32) << 16).view(np.float32)
        sums = np.zeros(self.outputs, np.float32)
        for step in range(weights.shape[1] // 16):
            of_step = weights[:, 16 * step : 16 * step + 16].sum(1).astype(np.float32)
            sums -= of_step * np.float32(self.zero_point) * wide[:, 16 * step // self.block]
        bits = (wide * np.float32(1 / 16)).view(np.uint32)
        small = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        there = -(-self.outputs // 8) * 8
        written = layout(
            _padded(np.full_like(weights, -1), there),
            _padded(np.full_like(small, 0xFFFF), there),
            np.full(there, 0xFFFFFFFF, np.uint32).view(np.float32),
            _padded(np.full(self.outputs, 0xFFFFFFFF * self.bias, np.uint32), there).view(
                np.float32
            ),
        )
        whole = layout(
            _padded(weights, there),
            _padded(small, there),
            _padded(sums, there),
            _padded(bias, there),
        )
        kept = np.frombuffer(written, np.uint8) != 0xFF
        return np.where(kept, np.uint8(0xA5), np.frombuffer(whole, np.uint8))


def _padded(part: npt.NDArray[Number], rows: int) -> npt.NDArray[Number]:
    missing = np.zeros((rows - len(part), *part.shape[1:]), part.dtype)
    return np.concatenate([part, missing])


class Driver:
    """The kernel in a process of its own, fed through pipes."""

    def __init__(self, program: Path, *words: str) -> None:
        pipe = subprocess.PIPE
        env = {**os.environ, "FARM_ISA": "avx2"}
        self.process = subprocess.Popen(
            [program, *words], stdin=pipe, stdout=pipe, stderr=pipe, env=env
        )

    def _ask(self, question: bytes, answer_bytes: int) -> bytes:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(question)
        stdin.flush()
        return stdout.read(answer_bytes)

    def check(self, p: Product) -> None:
        body, expected = p.operands()
        head = struct.pack("<4q", p.rows, p.columns, p.blocks * p.block, p.block)
        answer = self._ask(head + body, 4 * expected.size)
        found = np.frombuffer(answer, np.float32).reshape(expected.shape)
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-4)

    def check_packing(self, weights: Weights) -> None:
        expected = weights.packed().tobytes()
        assert self._ask(weights.sent(), len(expected)) == expected

    def close(self) -> None:
        _out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err.decode()[-3000:]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qb4w")
    return compile_driver(find_compiler(host_abi()), folder, source=SOURCE)


@pytest.fixture(scope="module")
def driver(program: Path) -> Iterator[Driver]:
    opened = Driver(program)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def packer(program: Path) -> Iterator[Driver]:
    opened = Driver(program, "pack")
    yield opened
    opened.close()


EDGES = [
    Product(rows=1, columns=1, blocks=1, block=32),
    Product(rows=3, columns=49, blocks=18, block=32),
    Product(rows=2, columns=8, blocks=3, block=64, extreme=True),
    Product(rows=1, columns=16, blocks=2, block=128, extreme=True),
    Product(rows=3, columns=9, blocks=1, block=256, extreme=True),
]


@given(
    st.builds(
        Product,
        rows=st.integers(1, 3),
        columns=st.integers(1, 40),
        blocks=st.integers(1, 12),
        block=st.sampled_from([32, 64, 128, 256]),
        seed=st.integers(0, 2**32 - 1),
    )
)
@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_against_double_precision(driver: Driver, product: Product) -> None:
    driver.check(product)


@pytest.mark.parametrize("product", EDGES, ids=str)
def test_edges(driver: Driver, product: Product) -> None:
    driver.check(product)


PACKED = [
    Weights(outputs=1, blocks=1, block=32),
    Weights(outputs=49, blocks=18, block=32, bias=False),
    Weights(outputs=8, blocks=3, block=64, zero_point=-3),
    Weights(outputs=23, blocks=5, block=128, extreme=True),
]


@given(
    st.builds(
        Weights,
        outputs=st.integers(1, 40),
        blocks=st.integers(1, 12),
        block=st.sampled_from([32, 64, 128, 256]),
        bias=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
    )
)
@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_packed_bytes(packer: Driver, weights: Weights) -> None:
    packer.check_packing(weights)


@pytest.mark.parametrize("weights", PACKED, ids=str)
def test_packed_edges(packer: Driver, weights: Weights) -> None:
    packer.check_packing(weights)


def test_clean_under_sanitizers(tmp_path: Path) -> None:
    program = compile_driver(find_compiler(host_abi()), tmp_path, SANITIZERS, source=SOURCE)
    opened = Driver(program)
    for product in EDGES:
        opened.check(product)
    opened.close()
    opened = Driver(program, "pack")
    for weights in PACKED:
        opened.check_packing(weights)
    opened.close()
