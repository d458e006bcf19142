"""The farm command as a user starts it: a process of its own, with a FARM_HOME of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.paths import native_cache

SOURCES = Path(__file__).parents[1]
CONFIGS = SOURCES / "configs"
#: Builds of native programs, shared by all tests and kept between runs.
NATIVE = SOURCES / "build" / "native-tests"


def share_native(home: Path) -> None:
    """Let a FARM_HOME find the native programs that other tests compiled; keyed by content."""
    place = native_cache(home)
    if not place.is_symlink() and not place.exists():
        NATIVE.mkdir(parents=True, exist_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        place.symlink_to(NATIVE)


def share_objects() -> None:
    """Let all compilations of this process and its children share objects; keyed by content."""
    folder = NATIVE / "compilers"
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    for name in ("g++", "aarch64-linux-gnu-g++", "clang++-19"):
        if shutil.which(name) is not None:
            with contextlib.suppress(FileExistsError):
                (folder / name).symlink_to(SOURCES / "tests" / "compile_once.sh")
    if str(folder) not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def warm(home: Path, store: Path) -> Path:
    """Give a FARM_HOME a copy of the warm store, and nothing else."""
    shutil.copytree(store, home / "store", symlinks=True)
    return home


_started: list[subprocess.Popen[str]] = []


def start(words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a program whose output is read; it is gone after the test, also one that fails."""
    process: subprocess.Popen[str] = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, **options
    )
    _started.append(process)
    return process


def end_started() -> None:
    """End what was started and still runs."""
    while _started:
        process = _started.pop()
        process.kill()
        with process:
            pass


@dataclass(frozen=True, slots=True)
class Farm:
    """Starts farm commands with one FARM_HOME and one working directory."""

    home: Path
    cwd: Path

    def __post_init__(self) -> None:
        share_native(self.home)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FARM_HOME": str(self.home), "PYTHONPATH": str(SOURCES)}

    def __call__(self, *arguments: str, limit_s: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "farm", *arguments],
            capture_output=True,
            text=True,
            timeout=limit_s,
            cwd=self.cwd,
            env=self.environment,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return start(
            [sys.executable, "-m", "farm", *arguments],
            stderr=subprocess.STDOUT,
            cwd=self.cwd,
            env=self.environment,
        )

    def report(self, run: str = "latest") -> dict[str, Any]:
        text = (self.cwd / "runs" / run / "report.json").read_text()
        data: dict[str, Any] = json.loads(text)
        return data

    def processes(self) -> list[str]:
        """Command lines of live processes that were started with this FARM_HOME.

        An adb server that farm had to start stays, as with every adb command.
        """
        mark = f"FARM_HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if mark in environment and line and "fork-server" not in line:
                found.append(line)
        return found
