"""`make install` on a small stand-in of the project: real make, venv and pip, no dependencies.

The full install is what CI itself starts with; here it's about being interrupted, repeated, moved
and refused.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.command import start
from tests.pace import slack

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """\
[build-system]
requires = ["setuptools>=75"]
build-backend = "setuptools.build_meta"
[project]
name = "farm"
version = "0.1.0"
dependencies = []
[project.optional-dependencies]
dev = []
[project.scripts]
farm = "farm.cli:main"
[tool.setuptools.packages.find]
include = ["farm*"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with our own Makefile and scripts, in a folder with a space in its name."""
    root = tmp_path / "my farm"
    (root / "farm").mkdir(parents=True)
    (root / "farm/__init__.py").write_text("")
    (root / "farm/cli.py").write_text("import sys\ndef main(): print('first', *sys.argv[1:])\n")
    (root / "pyproject.toml").write_text(PROJECT)
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for name in ("Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    return root


def make(
    project: Path, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *words],
        cwd=project,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    # `make test` runs this test: its own make variables must not reach the makes in here.
    dropped = ("VENV", "CXX", "PYTHON", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, **(changes or {})}


def test_install_elsewhere_repeat_edit_refresh_and_clean(project: Path, tmp_path: Path) -> None:
    venv = tmp_path / "other place" / "env"
    moved = {"VENV": str(venv)}
    first = make(project, "run", "CONFIG=a.yaml", "ARGS=--quick", env=moved)
    assert first.returncode == 0, first.stderr
    assert "GB to download" in first.stdout
    assert first.stdout.splitlines()[-1] == "first run a.yaml --quick"

    (project / "farm/cli.py").write_text("def main(): print('edited')\n")
    started = time.monotonic()
    second = make(project, "run", env=moved)
    assert (second.stdout, second.returncode) == ("edited\n", 0)
    assert time.monotonic() - started < 10 * slack()

    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace("0.1.0", "0.2.0"))
    third = make(project, "run", env=moved)
    assert "installing" in third.stdout
    assert "farm-0.2.0" in third.stdout

    assert not (project / ".venv").exists()
    assert make(project, "clean", env=moved).returncode == 0
    assert not venv.exists()
    assert (project / "farm/cli.py").exists()


def test_a_killed_install_is_not_taken_for_finished(project: Path) -> None:
    process = start(
        ["make", "install"],
        cwd=project,
        env=environment(),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    venv = project / ".venv"
    until = time.monotonic() + 120
    while not (venv / ".farm-unfinished").exists():
        assert process.poll() is None, "the install ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (venv / "rest of the killed install").write_text("")

    again = make(project, "run")
    assert again.returncode == 0, again.stderr
    assert "creating the virtual environment" in again.stdout
    assert "first run" in again.stdout
    assert not (venv / "rest of the killed install").exists()
    assert not (venv / ".farm-unfinished").exists()


def test_a_folder_that_is_no_environment_is_left_alone(project: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/to-mother.txt").write_text("dear")
    for goal in ("install", "clean"):
        done = make(project, goal, env={"VENV": str(tmp_path / "letters")})
        assert (done.returncode != 0) == (goal == "install")
        assert (tmp_path / "letters/to-mother.txt").read_text() == "dear"


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_nothing_is_installed(project: Path, compiler: str) -> None:
    done = make(project, "run", env={"CXX": compiler})
    assert done.returncode != 0
    assert f"no working C++17 compiler (tried: {compiler})" in done.stderr
    for remedy in ("apt-get install g++", "dnf install gcc-c++", "xcode-select --install"):
        assert remedy in done.stderr
    assert not (project / ".venv").exists()


def test_an_old_python_is_refused_with_its_version(project: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.9.2' && exit\nexit 1\n")
    old.chmod(0o755)
    done = make(project, "install", env={"PYTHON": str(old)})
    assert done.returncode != 0
    assert "not a Python 3.11" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert not (project / ".venv").exists()


def test_a_python_without_venv_is_told(project: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexit 0\n')
    bare.chmod(0o755)
    done = make(project, "install", env={"PYTHON": str(bare)})
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr


def test_make_alone_teaches_and_changes_nothing(project: Path) -> None:
    before = sorted(project.rglob("*"))
    done = make(project)
    assert done.returncode == 0
    for goal in ("make run", "make test", "make check", "make unit", "make bench"):
        assert goal in done.stdout
    assert sorted(project.rglob("*")) == before
