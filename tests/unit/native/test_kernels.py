"""The attention kernels against double precision: every instruction set, int8 and fp32 caches."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from runners.build.compiler import find_compiler, host_abi

from .kernel_problems import (
    AVX512,
    EDGES,
    SANITIZERS,
    TOLERANCE,
    Driver,
    Problem,
    compile_driver,
    problems,
)


@pytest.fixture(scope="session")
def program() -> Path:
    return compile_driver(find_compiler(host_abi()))


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
    flags = frozenset(Path("/proc/cpuinfo").read_text().split())
    expected = "avx2" if "avx2" in flags else "portable"
    if host_abi() == "arm64-v8a":
        expected = "neon"
    elif flags >= AVX512:
        expected = "avx512"
    assert best.isa == expected


def test_neon_under_emulation(opened: Open) -> None:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None or shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("needs qemu-user-static and g++-aarch64-linux-gnu")
    program = compile_driver(find_compiler("arm64-v8a"))
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


def test_clean_under_sanitizers(opened: Open) -> None:
    program = compile_driver(find_compiler(host_abi()), SANITIZERS)
    for isa in ("best", "portable"):
        driver = opened(isa, threads=2, path=program)
        for order, problem in enumerate(EDGES):
            assert _error(driver, replace(problem, order=order % 5)) <= TOLERANCE
