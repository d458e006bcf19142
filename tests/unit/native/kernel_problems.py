"""Random problems of attention, what they should give, and the compiled kernels to give them to."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from runners.build.compiler import Compiler, compile_objects, link
from runners.build.native import SOURCES
from tests.command import NATIVE
from tests.lab.host import locked

Array = npt.NDArray[np.float32]
TOLERANCE = 1e-4
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
DRIVER = Path(__file__).with_name("kernel_driver.cpp")
#: What `avx512` needs, as /proc/cpuinfo calls it.
AVX512 = frozenset(("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"))
#: And what the matrix unit needs besides.
AMX = AVX512 | {"amx_tile", "amx_int8"}
#: Sources that are built against ExecuTorch.
NEED_SDK = ("operators", "xnnpack", "xnnpack_operator", "xnnpack_packing")


class Rounded(NamedTuple):
    """A tensor as int8, with a scale and a zero point for each row of its last dimension."""

    stored: npt.NDArray[np.int8]
    zeros: npt.NDArray[np.int8]
    scales: Array

    def floats(self) -> npt.NDArray[np.float64]:
        return (self.stored.astype(np.float64) - self.zeros) * self.scales.astype(np.float64)


def round_rows(x: Array) -> Rounded:
    low = np.minimum(x.min(axis=-1, keepdims=True), 0)
    high = np.maximum(x.max(axis=-1, keepdims=True), 0)
    scales = np.maximum((high - low) / 255, np.float32(1e-6)).astype(np.float32)
    zeros = np.clip(np.round(-128 - low / scales), -128, 127)
    stored = np.clip(np.round(x / scales) + zeros, -128, 127)
    return Rounded(stored.astype(np.int8), zeros.astype(np.int8), scales)


@dataclass(frozen=True)
class Problem:
    tokens: int
    heads: int
    kv_heads: int
    width: int
    cache: int
    start: int
    batch: int = 1
    causal: bool = True
    masked: bool = False
    order: int = 0
    seed: int = 0
    spread: float = 1.0
    rounded: bool = False
    """Queries and cache are int8."""

    @property
    def scale(self) -> float:
        return float(self.width**-0.5)

    def inputs(self) -> tuple[Array, Array, Array, Array | None]:
        draw = np.random.default_rng(self.seed)

        def normal(*shape: int) -> Array:
            return (draw.standard_normal(shape) * self.spread).astype(np.float32)

        query = normal(self.batch, self.tokens, self.heads, self.width)
        key = normal(self.batch, self.cache, self.kv_heads, self.width)
        value = normal(self.batch, self.cache, self.kv_heads, self.width)
        if not self.masked:
            return query, key, value, None
        mask = normal(self.tokens, self.cache)
        hidden = draw.random(mask.shape) < 0.3
        hidden[:, 0] = False
        return query, key, value, np.where(hidden, np.float32(-np.inf), mask)

    def body(self) -> bytes:
        """What the driver reads after the head."""
        tensors = [x for x in self.inputs()[:3] if x is not None]
        parts = [part for x in tensors for part in (round_rows(x) if self.rounded else (x,))]
        mask = self.inputs()[3]
        return b"".join(x.tobytes() for x in [*parts, *([] if mask is None else [mask])])

    def expected(self) -> npt.NDArray[np.float64]:
        *tensors, mask = self.inputs()
        query, key, value = (
            round_rows(x).floats() if self.rounded else x.astype(float)
            for x in tensors
            if x is not None
        )
        group = self.heads // self.kv_heads
        key, value = key.repeat(group, axis=2), value.repeat(group, axis=2)
        scores = np.einsum("bshd,bthd->bhst", query, key) * self.scale
        if mask is not None:
            scores = scores + mask
        if not self.masked:
            scores[..., self.start + self.tokens :] = -np.inf
        if self.causal:
            last = self.start + np.arange(self.tokens)[:, None]
            scores = np.where(np.arange(self.cache)[None, :] > last, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed: npt.NDArray[np.float64] = np.einsum("bhst,bthd->bshd", weights, value)
        return mixed


class Driver:
    """The kernel in a process of its own, fed through pipes."""

    def __init__(self, program: Path, env: dict[str, str], prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
        )
        assert self.process.stderr is not None
        self.isa = self.process.stderr.readline().decode().strip()

    def __call__(self, p: Problem) -> Array:
        head = (p.batch, p.tokens, p.heads, p.kv_heads, p.width, p.cache, p.start)
        flags = (int(p.causal), p.order, int(p.masked), int(p.rounded))
        shape = (p.batch, p.tokens, p.heads, p.width)
        size = 4 * math.prod(shape)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(struct.pack("<11qf", *head, *flags, p.scale) + p.body())
        self.process.stdin.flush()
        raw = self.process.stdout.read(size)
        assert len(raw) == size, self.errors()
        return np.frombuffer(raw, np.float32).reshape(shape)

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()[-3000:]

    def close(self) -> None:
        _out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err.decode()[-3000:]


def compile_driver(
    compiler: Compiler, flags: tuple[str, ...] = (), *, source: Path = DRIVER
) -> Path:
    """The kernels and a driver as one program; static unless flags (sanitizers) are given.

    Compiled once for each content of the sources, for all tests and processes. Drivers share the
    kernels' objects.
    """
    folders = ("kernels", "attention", "tuned")
    ours = [path for folder in folders for path in (SOURCES / folder).glob("*.cpp")]
    kernels = [path for path in ours if path.stem not in NEED_SDK]
    words = (*(flags or ("-O3",)), "-fno-math-errno", f"-I{SOURCES}")
    files = sorted(path for path in SOURCES.rglob("*") if path.is_file())
    folder = NATIVE / f"kernels-{_digest(files, compiler.identity, *compiler.flags, *words)}"
    program = folder / f"{source.stem}-{_digest([source])}"
    with locked(folder.with_suffix(".lock")), TemporaryDirectory(dir=NATIVE) as scratch:
        place = Path(scratch)
        if not folder.is_dir():
            (place / "objects").mkdir()
            compile_objects(compiler, kernels, words, place / "objects")
            (place / "objects").rename(folder)
        if not program.is_file():
            driver = compile_objects(compiler, [source], words, place)
            static = () if flags else ("-static",)
            link(compiler, [*folder.glob("*.o"), *driver], (*flags, *static), place / "program")
            (place / "program").rename(program)
    return program


def _digest(files: Sequence[Path], *words: str) -> str:
    """A short key of contents and words."""
    content = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    return hashlib.sha256(repr((words, content)).encode()).hexdigest()[:16]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    kv_heads = draw(st.integers(1, 4))
    cache = draw(st.integers(1, 330))
    causal = draw(st.booleans())
    tokens = draw(st.integers(1, min(cache, 70)))
    return Problem(
        tokens=tokens,
        heads=kv_heads * draw(st.sampled_from([1, 1, 2, 3, 4, 7])),
        kv_heads=kv_heads,
        width=draw(st.one_of(st.sampled_from([32, 64, 80, 128]), st.integers(1, 70))),
        cache=cache,
        start=draw(st.integers(0, cache - tokens)),
        batch=draw(st.sampled_from([1, 1, 1, 2])),
        causal=causal,
        masked=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
        spread=draw(st.sampled_from([0.1, 1.0, 3.0])),
        rounded=draw(st.booleans()),
    )


_SHAPES = [
    Problem(tokens=1, heads=1, kv_heads=1, width=1, cache=1, start=0),
    Problem(tokens=1, heads=9, kv_heads=3, width=64, cache=512, start=511),
    Problem(tokens=128, heads=9, kv_heads=3, width=64, cache=128, start=0),
    Problem(tokens=3, heads=32, kv_heads=8, width=64, cache=700, start=600),
    Problem(tokens=1, heads=1, kv_heads=1, width=67, cache=130, start=129),
    Problem(tokens=5, heads=8, kv_heads=1, width=13, cache=77, start=40),
    Problem(tokens=2, heads=4, kv_heads=4, width=8, cache=600, start=0, causal=False, masked=True),
]
EDGES = [replace(shape, rounded=rounded) for shape in _SHAPES for rounded in (False, True)]
