"""The product of int8 rows with 4-bit weights, and their packing, against numpy."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runners.build.compiler import find_compiler, host_abi

from .kernel_problems import AMX, AVX512, SANITIZERS, compile_driver

Number = TypeVar("Number", bound=np.generic)
SOURCE = Path(__file__).with_name("qb4w_driver.cpp")
FLAGS = frozenset(Path("/proc/cpuinfo").read_text().split())

pytestmark = pytest.mark.skipif("avx2" not in FLAGS, reason="this CPU has no AVX2")


class Kernel(NamedTuple):
    name: str
    flags: frozenset[str]
    """What the CPU must have."""
    rows: int
    """Most of one call."""
    tile: int
    """Columns."""
    activations: type[np.int8 | np.uint8]
    blocks: tuple[int, ...]
    """Inputs of a block."""


BLOCKS = (32, 64, 128, 256)
#: No emulator has AVX-512: those kernels are tested on CPUs that have it.
KERNELS = tuple(
    kernel
    for kernel in (
        Kernel("avx2", frozenset(("avx2", "fma")), 3, 8, np.int8, BLOCKS),
        Kernel("avx512", AVX512, 8, 16, np.uint8, BLOCKS),
        Kernel("amx", AMX, 16, 16, np.uint8, (32,)),
    )
    if kernel.flags <= FLAGS
)


@dataclass(frozen=True)
class Product:
    kernel: Kernel
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
        tile = self.kernel.tile
        shape = (-(-self.columns // tile) * tile, inputs)
        limits = np.iinfo(self.kernel.activations)
        if self.extreme:
            worst = max(limits.min, limits.max, key=abs)
            a = np.full((self.rows, inputs), worst, self.kernel.activations)
            weights = np.full(shape, -8, np.int8)
        else:
            a = draw.integers(
                limits.min, limits.max + 1, (self.rows, inputs), self.kernel.activations
            )
            weights = draw.integers(-8, 8, shape, np.int8)
        scales = draw.uniform(0.001, 0.01, (shape[0], self.blocks)).astype(np.float32)
        stored = (scales.view(np.uint32) >> 16).astype(np.uint16)
        scales = (stored.astype(np.uint32) << 16).view(np.float32) * 16
        sums = draw.normal(size=shape[0]).astype(np.float32)
        bias = draw.normal(size=shape[0]).astype(np.float32)
        zeros = draw.integers(-128, 128, self.rows).astype(np.int32)
        steps = draw.uniform(0.001, 0.01, self.rows).astype(np.float32)
        rows = b"".join(struct.pack("<if", *row) for row in zip(zeros, steps, strict=True))
        packed = layout(tile, weights, stored, sums, bias)
        grouped = a.reshape(self.rows, 1, self.blocks, -1).astype(float) * weights.reshape(
            1, shape[0], self.blocks, -1
        )
        exact = (grouped.sum(-1) * scales).sum(-1) + zeros[:, None] * sums.astype(float)
        result = exact * steps.astype(float)[:, None] + bias
        return a.tobytes() + rows + packed, result[:, : self.columns]


def layout(
    tile: int,
    weights: npt.NDArray[np.int8],
    scales: npt.NDArray[np.uint16],
    sums: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
) -> bytes:
    """What XNNPACK packs: tiles of columns, eight inputs of each side by side.

    Args:
        tile: Columns of one.
        weights: [columns, inputs], columns a multiple of `tile`.
        scales: bf16 [columns, blocks].
        sums: [columns].
        bias: [columns].
    """
    blocks = scales.shape[1]
    steps = weights.shape[1] // blocks // 16
    nibbles = (weights.astype(np.uint8) & 15).reshape(-1, tile, blocks, steps, 16)
    pairs = nibbles[..., :8] | nibbles[..., 8:] << 4
    parts = []
    for number in range(len(nibbles)):
        columns = slice(tile * number, tile * (number + 1))
        parts.append(sums[columns].tobytes())
        for block in range(blocks):
            parts.append(pairs[number, :, block].swapaxes(0, 1).tobytes())
            parts.append(scales[columns, block].tobytes())
        parts.append(bias[columns].tobytes())
    return b"".join(parts)


@dataclass(frozen=True)
class Weights:
    tile: int
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
        there = -(-self.outputs // self.tile) * self.tile
        written = layout(
            self.tile,
            _padded(np.full_like(weights, -1), there),
            _padded(np.full_like(small, 0xFFFF), there),
            np.full(there, 0xFFFFFFFF, np.uint32).view(np.float32),
            _padded(np.full(self.outputs, 0xFFFFFFFF * self.bias, np.uint32), there).view(
                np.float32
            ),
        )
        whole = layout(
            self.tile,
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
        self.process = subprocess.Popen([program, *words], stdin=pipe, stdout=pipe, stderr=pipe)

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
def program() -> Path:
    return compile_driver(find_compiler(host_abi()), source=SOURCE)


@pytest.fixture(scope="module", params=KERNELS, ids=lambda kernel: kernel.name)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    chosen: Kernel = request.param
    return chosen


@pytest.fixture(scope="module")
def driver(program: Path, kernel: Kernel) -> Iterator[Driver]:
    opened = Driver(program, kernel.name)
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=[8, 16])
def tile(request: pytest.FixtureRequest) -> int:
    columns: int = request.param
    return columns


@pytest.fixture(scope="module")
def packer(program: Path, tile: int) -> Iterator[Driver]:
    opened = Driver(program, "pack", str(tile))
    yield opened
    opened.close()


def edges(kernel: Kernel) -> list[Product]:
    most, tile = kernel.rows, kernel.tile
    extremes = [
        product
        for block in kernel.blocks
        for product in (
            Product(kernel, rows=2, columns=tile, blocks=3, block=block, extreme=True),
            Product(kernel, rows=1, columns=2 * tile, blocks=2, block=block, extreme=True),
            Product(kernel, rows=most, columns=tile + 1, blocks=1, block=block, extreme=True),
        )
    ]
    return [
        Product(kernel, rows=1, columns=1, blocks=1, block=32),
        Product(kernel, rows=most, columns=49, blocks=18, block=32),
        Product(kernel, rows=most, columns=98, blocks=18, block=32),
        *extremes,
    ]


@given(data=st.data())
@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_against_double_precision(kernel: Kernel, driver: Driver, data: st.DataObject) -> None:
    product = st.builds(
        Product,
        kernel=st.just(kernel),
        rows=st.integers(1, kernel.rows),
        columns=st.integers(1, 100),
        blocks=st.integers(1, 12),
        block=st.sampled_from(kernel.blocks),
        seed=st.integers(0, 2**32 - 1),
    )
    driver.check(data.draw(product))


def test_edges(kernel: Kernel, driver: Driver) -> None:
    for product in edges(kernel):
        driver.check(product)


def packed_edges(tile: int) -> list[Weights]:
    return [
        Weights(tile, outputs=1, blocks=1, block=32),
        Weights(tile, outputs=49, blocks=18, block=32, bias=False),
        Weights(tile, outputs=tile, blocks=3, block=64, zero_point=-3),
        Weights(tile, outputs=23, blocks=5, block=128, extreme=True),
    ]


@given(data=st.data())
@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_packed_bytes(tile: int, packer: Driver, data: st.DataObject) -> None:
    weights = st.builds(
        Weights,
        tile=st.just(tile),
        outputs=st.integers(1, 50),
        blocks=st.integers(1, 12),
        block=st.sampled_from(BLOCKS),
        bias=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
    )
    packer.check_packing(data.draw(weights))


def test_packed_edges(tile: int, packer: Driver) -> None:
    for weights in packed_edges(tile):
        packer.check_packing(weights)


def test_clean_under_sanitizers() -> None:
    program = compile_driver(find_compiler(host_abi()), SANITIZERS, source=SOURCE)
    for kernel in KERNELS:
        opened = Driver(program, kernel.name)
        for product in edges(kernel):
            opened.check(product)
        opened.close()
    for tile in (8, 16):
        opened = Driver(program, "pack", str(tile))
        for weights in packed_edges(tile):
            opened.check_packing(weights)
        opened.close()
