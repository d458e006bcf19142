"""The real farm-runner and a tiny real .pte, made once."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runners.build.cache import NativeBuild
from runners.build.compiler import host_abi
from runners.build.native import build_runner
from runners.build.sdk import installed_sdk
from tests.lab.tiny_model import tiny_model

ROOT = Path(__file__).parents[3]
CACHE = ROOT / "build" / "native-tests"


@dataclass(frozen=True)
class Run:
    """What one start of the runner left."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (line,) = self.of(kind)
        return line

    def logits(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        line = next(line for line in self.of("logits") if line["name"] == name)
        return np.fromfile(self.folder / line["file"], np.float32).reshape(
            line["rows"], line["cols"]
        )


Start = Callable[..., Run]


@pytest.fixture(scope="session")
def build() -> NativeBuild:
    return build_runner(host_abi(), installed_sdk(), CACHE)


@pytest.fixture(scope="session")
def tiny() -> Path:
    return tiny_model()


@pytest.fixture(scope="session")
def tuned_build() -> NativeBuild:
    return build_runner(host_abi(), installed_sdk(), CACHE, tuned=True)


@pytest.fixture
def start(build: NativeBuild, tmp_path: Path) -> Start:
    return starter(build, tmp_path)


@pytest.fixture
def start_tuned(tuned_build: NativeBuild, tmp_path: Path) -> Start:
    return starter(tuned_build, tmp_path)


def starter(build: NativeBuild, tmp_path: Path, emulator: tuple[str, ...] = ()) -> Start:
    """Starts of that build; of another machine's with an emulator in front."""
    runner = build.file("farm-runner").path

    def call(
        model: Path,
        request: object,
        *data: Path,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Run:
        path = tmp_path / "request.json"
        if isinstance(request, bytes):
            path.write_bytes(request)
        else:
            path.write_text(json.dumps(request))
        words = ["--model", str(model), "--request", str(path), "--out", str(tmp_path)]
        for weights in data:
            words += ["--data", str(weights)]
        done = subprocess.run(
            [*emulator, *prefix, str(runner), *words],
            capture_output=True,
            timeout=60,
            check=False,
            env={**os.environ, "LD_LIBRARY_PATH": str(runner.parent / "lib"), **(env or {})},
        )
        out, err = (raw.decode(errors="replace") for raw in (done.stdout, done.stderr))
        return Run(done.returncode, out, err, tmp_path)

    return call
