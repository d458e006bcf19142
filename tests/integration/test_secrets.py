"""Secrets of the environment stay there: not in reports, logs, journals or command lines."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm

SECRET = "hf_6c1fnotarealtoken"


def command_lines() -> bytes:
    """Arguments of every process of this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return b"\0".join(found)


@pytest.mark.export
def test_tokens_appear_nowhere(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "FARM_SSH_PASSPHRASE"):
        monkeypatch.setenv(name, SECRET)
    words = ("--cluster", "none", "--live", "off", "--quick", "--select", "transport=local")
    running = farm.start("run", str(CONFIGS / "tiny.yaml"), *words)
    seen = b""
    while running.poll() is None:
        seen += command_lines()
        time.sleep(0.2)
    output, _ = running.communicate()
    assert b"farm-runner" in seen  # the command lines of the run were looked at
    assert SECRET.encode() not in seen
    assert SECRET not in output
    files = [path for path in (farm.cwd / "runs").rglob("*") if path.is_file()]
    assert any(path.name == "report.json" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
