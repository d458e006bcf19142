"""The real farm-helper, built once per content, and a small way to call it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.build.compiler import host_abi
from runners.build.native import build_helper

CACHE = Path(__file__).parents[3] / "build" / "native-tests"


@dataclass(frozen=True)
class Answer:
    """What one call printed."""

    code: int
    out: bytes

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def value(self) -> dict[str, Any]:
        (line,) = self.lines
        return line

    @property
    def error(self) -> str:
        return str(self.value["error"]["code"])


Helper = Callable[..., Answer]


@pytest.fixture(scope="session")
def helper_path() -> Path:
    return build_helper(host_abi(), CACHE).file("farm-helper").path


@pytest.fixture
def helper(helper_path: Path) -> Helper:
    def call(*words: object, stdin: str = "", env: dict[str, str] | None = None) -> Answer:
        done = subprocess.run(
            [str(helper_path), *map(str, words)],
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            timeout=60,
            check=False,
            env={**os.environ, **(env or {})},
        )
        return Answer(done.returncode, done.stdout)

    return call
