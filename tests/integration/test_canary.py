"""A runner whose attention is wrong by two percent: noise hides it, both canaries find it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm

pytestmark = pytest.mark.export

QUICK = ("--cluster", "none", "--live", "off", "--quick", "--set", "gates={}")


def test_a_broken_kernel_is_found_by_the_canaries_alone(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++ -DFARM_SCALE_ERROR=1.02")
    done = farm("run", str(CONFIGS / "tiny.yaml"), *QUICK, limit_s=900)
    assert done.returncode == 1, done.stdout + done.stderr
    (result,) = farm.report()["results"]
    assert result["outcome"] == "failed"
    assert "the runner's kernels compute wrongly on this device" in result["reason"]
    correctness = result["correctness"]
    assert correctness["canary"]["max_abs_error"] > 1e-3
    assert 0.99 < correctness["canary"]["layer_cosine"] < 0.9999
    failed = [gate["metric"] for gate in correctness["gates"] if gate["passed"] is False]
    assert failed == ["canary", "layer_replay"], "the host runs the same build: all else agrees"
    _is_diagnosed_and_shown(farm, result["cell_id"])

    monkeypatch.delenv("CXX")
    done = farm("run", str(CONFIGS / "tiny.yaml"), *QUICK, limit_s=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = farm.report()["results"]
    canary = result["correctness"]["canary"]
    assert canary["max_abs_error"] < 2e-5
    assert 1 >= canary["layer_cosine"] > 0.99999
    assert canary["layer_cosine_min"] > 0.999
    assert (canary["layer"], canary["layer_reason"]) == (0, "")
    gates = {gate["metric"]: gate for gate in result["correctness"]["gates"]}
    assert gates["layer_replay"]["value"] == canary["layer_cosine"]
    assert "no_canary" not in result["flags"]
    cell = result["cell_id"]
    done = farm("diagnose", "latest", cell, "--drivers", "--json", "--live", "off", limit_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["blame"], found["sentence"]) == (None, "no stage parts beyond its tolerance")
    assert [said for _, said in found["observed"]] == ["equal", "equal"]
    assert len(found["rows"]) == 2 * 11, "logits, embedding, five pieces of layer 0, four of 1"
    driven = {row["name"]: row["parts"] for row in found["drivers"]}
    assert driven == {"chunks of 16": False, "farm-runner": False, "TextLLMRunner": False}
    done = farm("repro", "latest", cell, "--live", "off")
    assert done.returncode == 2, "there is nothing to show, and no layer was named"
    assert "--layer" in done.stderr


def _is_diagnosed_and_shown(farm: Farm, cell: str) -> None:
    """The attention of layer 0 is blamed; its folder shows that without farm."""
    done = farm("diagnose", "latest", cell, "--json", "--live", "off")
    assert done.returncode == 1, done.stdout + done.stderr
    blame = json.loads(done.stdout)["blame"]
    assert (blame["layer"], blame["operator"]) == (0, "attention")
    assert blame["stage"] == "eager_quantised -> host_pte", "the host runs the same build"
    done = farm("repro", "latest", cell, "--to", "shown", "--live", "off")
    assert done.returncode == 1, "the layer parts: " + done.stdout + done.stderr
    shown = _repro(farm.cwd / "shown")
    assert shown.returncode == 1, shown.stdout + shown.stderr
    off = [line.split("  ")[0] for line in shown.stdout.splitlines() if line.endswith("<- off")]
    assert off == ["attention"]
    assert "same bytes as recorded: yes" in shown.stdout


def _repro(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a folder's script where nothing of farm can be found."""
    return subprocess.run(
        ["/bin/sh", str(folder / "repro.sh")],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "TARGET": "local"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
