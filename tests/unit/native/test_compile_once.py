"""The stand-in for compilers: it copies what is equal, and compiles what only looks so."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import SOURCES

SOURCE = "int answer() { return NUMBER; }\n"


class Bench:
    """A compiler that counts what it compiles, behind the stand-in."""

    def __init__(self, folder: Path, compiler: str) -> None:
        self.folder, self._log = folder, folder / "compiled"
        (folder / "compilers" / "objects").mkdir(parents=True)
        (folder / "compilers" / "g++").symlink_to(SOURCES / "tests" / "compile_once.sh")
        (folder / "real").mkdir()
        (folder / "real" / "g++").write_text(
            f'#!/bin/sh\n[ "$1" = -E ] || echo "$*" >> {self._log}\nexec {compiler} "$@"\n'
        )
        (folder / "real" / "g++").chmod(0o755)

    def compiled(self) -> int:
        return len(self._log.read_text().splitlines()) if self._log.exists() else 0

    def __call__(self, *flags: str, text: str = SOURCE) -> subprocess.CompletedProcess[str]:
        (self.folder / "a.cpp").write_text(text)
        path = f"{self.folder}/compilers:{self.folder}/real:{os.environ['PATH']}"
        return subprocess.run(
            ["g++", "-c", *flags, str(self.folder / "a.cpp"), "-o", str(self.folder / "a.o")],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    compiler = shutil.which("g++", path="/usr/local/bin:/usr/bin")
    if compiler is None:
        pytest.skip("needs g++")
    return Bench(tmp_path, compiler)


def test_equal_sources_are_compiled_once(bench: Bench) -> None:
    assert bench("-DNUMBER=1", "-O1").returncode == 0
    first = (bench.folder / "a.o").read_bytes()
    (bench.folder / "a.o").unlink()
    assert bench("-DNUMBER=1", "-DVERSION=2", "-O1").returncode == 0
    assert (bench.folder / "a.o").read_bytes() == first
    assert bench.compiled() == 1


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-DNUMBER=2", "-O1"), SOURCE),
        (("-DNUMBER=1", "-O2"), SOURCE),
        (("-DNUMBER=1", "-O1", "-std=c++20"), SOURCE),
        (("-DNUMBER=1", "-O1"), SOURCE + "int other;\n"),
    ],
    ids=["macro", "optimisation", "language", "text"],
)
def test_what_differs_is_compiled(bench: Bench, flags: tuple[str, ...], text: str) -> None:
    assert bench("-DNUMBER=1", "-O1").returncode == 0
    assert bench(*flags, text=text).returncode == 0
    assert bench.compiled() == 2


def test_another_compiler_compiles_anew(bench: Bench) -> None:
    assert bench("-DNUMBER=1").returncode == 0
    with (bench.folder / "real" / "g++").open("a") as stream:
        stream.write("# newer\n")
    assert bench("-DNUMBER=1").returncode == 0
    assert bench.compiled() == 2


def test_flags_that_it_does_not_know_are_the_compilers(bench: Bench) -> None:
    for _ in range(2):
        assert bench("-DNUMBER=1", "-fno-exceptions").returncode == 0
    assert bench.compiled() == 2


def test_a_refused_source_is_refused_each_time(bench: Bench) -> None:
    for _ in range(2):
        done = bench("-DNUMBER=nothing")
        assert done.returncode == 1
        assert "nothing" in done.stderr
    assert not list((bench.folder / "compilers" / "objects").iterdir())
