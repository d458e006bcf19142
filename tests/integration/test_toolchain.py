"""Two toolchains end to end: each in an environment of its own, built once by whoever is first."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from tests.command import Farm

pytestmark = pytest.mark.export

OLD = "1.4.1"
CONFIG = """
name: toolchains
models: [tiny-llama]
toolchains: {{old: {{executorch: "{specifier}"}}}}
matrix: {{recipe: [xnnpack-8da4w], toolchain: [default, old], threads: [1]}}
devices: [{{each: "transport=local"}}]
workload: {{prefill: [16], decode: [8], launches: 2, max_launches: 2, repetitions: 2, budget_s: 20}}
correctness: {{tokens: 64, prompt: Hello, max_new_tokens: 4}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config that takes its toolchain from a wheel beside it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    words = ["--only-binary=:all:", "--dest", str(tmp_path / "wheels"), f"executorch=={OLD}"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs a package index: {done.stderr.strip()[-300:]}")
    path = tmp_path / "old.yaml"
    path.write_text(CONFIG.format(specifier="./wheels/*.whl"))
    return path


def test_two_at_once_install_it_once_and_both_artifacts_run(farm: Farm, config: Path) -> None:
    words = ("export", str(config), "--cluster", "none", "--live", "off")
    both = [farm.start(*words) for _ in range(2)]
    said = [process.communicate(timeout=500)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    built = ["installing toolchain old (looking for " in text for text in said]
    assert sorted(built) == [False, True], said

    done = farm("run", str(config), "--cluster", "none", "--live", "off", limit_s=500)
    assert done.returncode == 0, done.stdout + done.stderr
    report = farm.report()
    versions = report["toolchains"]
    own = metadata.version("executorch")
    assert {name: v["executorch"] for name, v in versions.items()} == {"default": own, "old": OLD}
    assert versions["old"]["torch"] == versions["default"]["torch"] == metadata.version("torch")
    assert all(v["python"] and v["torchao"] for v in versions.values())
    cells = {result["toolchain"]: result for result in report["results"]}
    assert {name: cell["outcome"] for name, cell in cells.items()} == dict.fromkeys(
        ("default", "old"), "passed"
    )
    keys = {name: cell["artifact"]["key"] for name, cell in cells.items()}
    assert keys["old"] != keys["default"]
    # The wheel of 1.4.1 has no C++ SDK: farm's own runtime runs the artifact, and says so.
    assert "other_runtime" not in cells["default"]["flags"]
    assert "other_runtime" in cells["old"]["flags"]
    assert f"ExecuTorch {OLD} has no C++ SDK" in cells["old"]["reason"]
    assert {cell["runner"]["executorch"] for cell in cells.values()} == {own}


def test_toolchain_that_can_not_be_installed_costs_its_own_cells_only(
    farm: Farm, tmp_path: Path
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(CONFIG.format(specifier="==99.0.0"))
    started = time.monotonic()
    done = farm("run", str(path), "--cluster", "none", "--live", "off")
    assert time.monotonic() - started < 120, "it takes seconds on a quiet machine"
    assert done.returncode == 3, done.stdout + done.stderr
    cells = {result["toolchain"]: result for result in farm.report()["results"]}
    assert cells["default"]["outcome"] == "passed"
    assert (cells["old"]["outcome"], cells["old"]["flags"]) == ("errored", ["export_failed"])
    assert "toolchain old: ==99.0.0 can't be installed" in cells["old"]["reason"]
    assert "executorch==99.0.0" in cells["old"]["reason"], "pip's own words"
