"""A runner whose attention is wrong by two percent: noise hides it, both canaries find it."""

from __future__ import annotations

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
