"""Every mistake of a user: one paragraph that names the culprit and the remedy, no traceback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm

TINY = str(CONFIGS / "tiny.yaml")


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path / "home", tmp_path)


def refused(done: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert "Traceback" not in output
    for text in says:
        assert text in output


def inventory(tmp_path: Path, text: str) -> str:
    path = tmp_path / "inventory.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "absent.yaml"], ["absent.yaml", "no such file", "ls configs"]),
        (["run", TINY, "--set", "wrkload=1"], ["wrkload", "unknown key", "workload"]),
        (["run", TINY, "--set", "models=[nope]"], ["models.0", "'nope'", "tiny-llama"]),
        (
            ["run", TINY, "--set", "matrix.recipe=[q3]"],
            ["matrix.recipe.0", "'q3'", "xnnpack-8da4w"],
        ),
        (["run", TINY, "--set", "matrix.runner=[r2]"], ["matrix.runner.0", "r2", "executorch"]),
        (["run", TINY, "--set", "models=[{name: x, pte: no.pte}]"], ["models.0.pte", "no.pte"]),
        (["run", TINY, "--set", "correctness.tokens=600"], ["600", "512", "xnnpack-8da4w"]),
        (["run", TINY, "--inventory", "no.yaml"], ["no.yaml", "no such file"]),
        (["run", TINY, "--select", "ram>>1"], ["ram>>1", "can't be read"]),
        (["run", TINY, "--live", "maybe"], ["--live", "auto, on or off"]),
        (["run", TINY, "--resume", "nope"], ["no run 'nope'"]),
        (["run", TINY, "--baseline", "nope"], ["no baseline 'nope'", "farm baseline list"]),
        (["report", "nope"], ["no run 'nope'", "latest"]),
        (["schema", "nope"], ["no schema 'nope'", "inventory"]),
        (["bench", "absent.pte"], ["absent.pte", "farm export"]),
        (["runners", "build", "z80"], ["z80", "arm64-v8a"]),
        (["walk"], ["walk"]),
    ],
)
def test_bad_usage_is_exit_2(farm: Farm, arguments: list[str], says: list[str]) -> None:
    refused(farm(*arguments), 2, *says)
    assert not (farm.cwd / "runs").exists(), "nothing half-written"


def test_inventory_without_devices(farm: Farm, tmp_path: Path) -> None:
    empty = inventory(tmp_path, "devices: []\ndefaults: {adb: none, local: false}\n")
    refused(farm("run", TINY, "--inventory", empty, "--cluster", "none"), 3, "no device", "local")


def test_unreachable_host_is_missing_not_silent(farm: Farm, tmp_path: Path) -> None:
    text = (
        "devices: [{name: pi5, transport: ssh, host: 127.0.0.1, port: 9, user: nobody}]\n"
        "defaults: {adb: none, local: false}\n"
    )
    done = farm(
        "run", TINY, "--inventory", inventory(tmp_path, text), "--cluster", "none", "--live", "off"
    )
    refused(done, 3, "pi5", "device missing", "127.0.0.1")
    (result,) = farm.report()["results"]
    assert result["outcome"] == "skipped"
    assert any("pi5" in alarm for alarm in farm.report()["alarms"])
