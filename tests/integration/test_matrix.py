"""Several models by several recipes from one config, and backends that can't run here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import Farm
from tests.integration.models import families

pytestmark = pytest.mark.export

RECIPES = ("xnnpack-fp32", "xnnpack-8da4w", "xnnpack-int8", "portable-fp32")
SMALL = """
devices: [{each: "transport=local"}]
workload: {prefill: [16], decode: [8], launches: 2, max_launches: 2, repetitions: 2, budget_s: 20}
correctness: {tokens: 64, prompt: Hello, max_new_tokens: 4}
export: {cpus: 1}
"""


def test_two_models_by_four_recipes_are_each_correct(warm_home: Path, tmp_path: Path) -> None:
    families.save_hf("qwen3", tmp_path / "qwen3")
    (tmp_path / "matrix.yaml").write_text(
        f"name: matrix\nmodels: [tiny-llama, {{name: ours, hf: ./qwen3}}]\n"
        f"matrix: {{recipe: [{', '.join(RECIPES)}], threads: [1]}}\n{SMALL}"
    )
    farm = Farm(warm_home, tmp_path)
    done = farm("run", "matrix.yaml", "--cluster", "none", "--live", "off", limit_s=580)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith(
        "8/8 judged: 8 passed, 0 failed; speed not gated -> exit 0"
    )
    report = farm.report()
    cells = {(r["model"], r["recipe"]): r for r in report["results"]}
    assert set(cells) == {(model, recipe) for model in ("tiny-llama", "ours") for recipe in RECIPES}
    assert len({r["artifact"]["sha256"] for r in cells.values()}) == 8
    for (model, recipe), result in cells.items():
        assert result["correctness"]["gates"], (model, recipe)
        assert all(gate["passed"] for gate in result["correctness"]["gates"]), (model, recipe)
    for export in report["exports"]:
        delegated, total = export["delegation"]["delegated"], export["delegation"]["total"]
        if export["recipe"] == "portable-fp32":
            assert delegated == 0
        else:
            assert 0.6 * total < delegated < total


def test_backends_without_a_runtime_here_are_lowered_and_not_run(
    warm_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "stock.yaml").write_text(
        "name: stock\nmodels: [tiny-llama]\n"
        f"matrix: {{recipe: [stock-vulkan, stock-coreml]}}\n{SMALL}"
    )
    farm = Farm(warm_home, tmp_path)
    done = farm("run", "stock.yaml", "--cluster", "none", "--live", "off", limit_s=580)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("2 not judged (2 no runtime); speed not gated -> exit 3")
    report = farm.report()
    for result in report["results"]:
        assert (result["outcome"], result["flags"]) == ("skipped", ["no_runtime"])
        backend = result["recipe"].removeprefix("stock-")
        assert f"runner executorch has no {backend} runtime" in result["reason"]
        assert result["artifact"]["size_bytes"] > 1000
    for export in report["exports"]:
        assert export["error"] is None
        assert export["delegation"]["delegated"] > 0.5 * export["delegation"]["total"]
