"""The attention kernel against torch's own custom operator and against double precision."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runners.build import SOURCES
from runners.compiler import Compiler, compile_objects, find_compiler, host_abi, link

Array = npt.NDArray[np.float32]
TOLERANCE = 1e-4
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")


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

    def expected(self) -> npt.NDArray[np.float64]:
        query, key, value, mask = (None if x is None else x.astype(float) for x in self.inputs())
        assert query is not None
        assert key is not None
        assert value is not None
        group = self.heads // self.kv_heads
        key, value = key.repeat(group, axis=2), value.repeat(group, axis=2)
        scores = np.einsum("bshd,bthd->bhst", query, key) * self.scale
        if mask is not None:
            scores = scores + mask
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
        query, key, value, mask = p.inputs()
        head = (p.batch, p.tokens, p.heads, p.kv_heads, p.width, p.cache, p.start)
        flags = (int(p.causal), p.order, int(p.masked))
        body = b"".join(x.tobytes() for x in (query, key, value, mask) if x is not None)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(struct.pack("<10qf", *head, *flags, p.scale) + body)
        self.process.stdin.flush()
        raw = self.process.stdout.read(query.nbytes)
        assert len(raw) == query.nbytes, self.errors()
        return np.frombuffer(raw, np.float32).reshape(query.shape)

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()[-3000:]

    def close(self) -> None:
        _out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err.decode()[-3000:]


def _compile(compiler: Compiler, folder: Path, flags: tuple[str, ...] = ()) -> Path:
    kernels = [path for path in (SOURCES / "kernels").glob("*.cpp") if path.stem != "operators"]
    sources = [*kernels, Path(__file__).with_name("kernel_driver.cpp")]
    words = (*(flags or ("-O3",)), "-fno-math-errno", f"-I{SOURCES}")
    program = folder / "kernel-driver"
    static = () if flags else ("-static",)
    link(compiler, compile_objects(compiler, sources, words, folder), (*flags, *static), program)
    return program


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(find_compiler(host_abi()), tmp_path_factory.mktemp("kernels"))


Open = Callable[..., Driver]


@pytest.fixture(scope="module")
def opened(program: Path) -> Iterator[Open]:
    drivers: list[Driver] = []

    def call(
        isa: str, threads: int = 1, *, path: Path = program, prefix: tuple[str, ...] = ()
    ) -> Driver:
        env = {"FARM_ISA": isa, "FARM_TEST_THREADS": str(threads)}
        drivers.append(Driver(path, env, prefix))
        return drivers[-1]

    yield call
    for driver in drivers:
        driver.close()


@pytest.fixture(scope="module")
def best(opened: Open) -> Driver:
    return opened("best")


@pytest.fixture(scope="module")
def portable(opened: Open) -> Driver:
    return opened("portable")


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
        start=draw(st.integers(0, cache - tokens)) if causal else 0,
        batch=draw(st.sampled_from([1, 1, 1, 2])),
        causal=causal,
        masked=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
        spread=draw(st.sampled_from([0.1, 1.0, 3.0])),
    )


EDGES = [
    Problem(tokens=1, heads=1, kv_heads=1, width=1, cache=1, start=0),
    Problem(tokens=1, heads=9, kv_heads=3, width=64, cache=512, start=511),
    Problem(tokens=128, heads=9, kv_heads=3, width=64, cache=128, start=0),
    Problem(tokens=3, heads=32, kv_heads=8, width=64, cache=700, start=600),
    Problem(tokens=1, heads=1, kv_heads=1, width=67, cache=130, start=129),
    Problem(tokens=5, heads=8, kv_heads=1, width=13, cache=77, start=40),
    Problem(tokens=2, heads=4, kv_heads=4, width=8, cache=600, start=0, causal=False, masked=True),
]


def _error(driver: Driver, problem: Problem) -> float:
    return float(np.abs(driver(problem) - problem.expected()).max())


@given(problems())
@settings(
    max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_against_double_precision(best: Driver, problem: Problem) -> None:
    assert _error(best, problem) <= TOLERANCE


@given(problems())
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_portable_against_double_precision(portable: Driver, problem: Problem) -> None:
    assert portable.isa == "portable"
    assert _error(portable, problem) <= TOLERANCE


@pytest.mark.parametrize("problem", EDGES, ids=str)
@pytest.mark.parametrize("isa", ["best", "portable"])
def test_edges(opened: Open, isa: str, problem: Problem) -> None:
    assert _error(opened(isa), problem) <= TOLERANCE


@pytest.mark.parametrize("problem", EDGES, ids=str)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_orders_are_the_same_mathematics(best: Driver, problem: Problem, order: int) -> None:
    assert _error(best, replace(problem, order=order)) <= TOLERANCE


def test_orders_differ_from_each_other_in_the_last_bits(best: Driver) -> None:
    problem = Problem(tokens=40, heads=9, kv_heads=3, width=64, cache=128, start=60)
    results = [best(replace(problem, order=order)).tobytes() for order in range(5)]
    assert len(set(results)) == 5


@pytest.mark.parametrize("problem", EDGES, ids=str)
def test_threads_do_not_change_a_bit(opened: Open, best: Driver, problem: Problem) -> None:
    assert np.array_equal(best(problem), opened("best", threads=3)(problem))


def test_a_row_that_sees_nothing_is_zero(best: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(
        tokens=2, heads=2, kv_heads=1, width=8, cache=20, start=0, causal=False, masked=True
    )
    query, key, value, mask = problem.inputs()
    assert mask is not None
    mask[1, :] = -np.inf
    monkeypatch.setattr(Problem, "inputs", lambda _self: (query, key, value, mask))
    out = best(problem)
    assert np.isfinite(out).all()
    assert (out[0, 1] == 0).all()


def test_the_isa_is_the_machines_best(best: Driver) -> None:
    flags = Path("/proc/cpuinfo").read_text()
    expected = "neon" if host_abi() == "arm64-v8a" else "avx2" if " avx2 " in flags else "portable"
    assert best.isa == expected


def test_neon_under_emulation(tmp_path: Path, opened: Open) -> None:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None or shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("needs qemu-user-static and g++-aarch64-linux-gnu")
    program = _compile(find_compiler("arm64-v8a"), tmp_path)
    for isa in ("neon", "portable"):
        driver = opened(isa, path=program, prefix=(emulator,))
        assert driver.isa == isa
        for problem in EDGES:
            assert _error(driver, problem) <= TOLERANCE


def test_a_cpu_without_avx2(opened: Open) -> None:
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None or host_abi() != "x86_64":
        pytest.skip("needs qemu-user-static on x86_64")
    driver = opened("best", prefix=(emulator, "-cpu", "Nehalem"))
    assert driver.isa == "portable"
    for problem in EDGES:
        assert _error(driver, problem) <= TOLERANCE


def test_clean_under_sanitizers(opened: Open, tmp_path: Path) -> None:
    program = _compile(find_compiler(host_abi()), tmp_path, SANITIZERS)
    for isa in ("best", "portable"):
        driver = opened(isa, threads=2, path=program)
        for order, problem in enumerate(EDGES):
            assert _error(driver, replace(problem, order=order % 5)) <= TOLERANCE
