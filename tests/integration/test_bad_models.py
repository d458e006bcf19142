"""Models and recipes that can't work: said in seconds, before anything is made or started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm
from tests.integration.test_errors import refused
from tests.unit.models.test_sources import hf, write_gguf

__all__ = ["hf"]

TINY = str(CONFIGS / "tiny.yaml")


def recipe(changes: str) -> list[str]:
    return [
        *("--set", f"recipes={{mine: {{base: xnnpack-8da4w, {changes}}}}}"),
        *("--set", "matrix.recipe=[mine]"),
    ]


def check(tmp_path: Path, words: list[str], *says: str) -> None:
    farm = Farm(tmp_path / "home", tmp_path)
    refused(farm("run", TINY, *words), 2, "tiny.yaml: ", *says)
    assert not (tmp_path / "runs").exists()
    found = {path.name for path in farm.home.iterdir()}
    assert found == {"native"}, "no worker, no store, no cluster"


def model(source: str) -> list[str]:
    return ["--set", f"models=[{{name: ours, {source}}}]"]


def test_truncated_safetensors(hf: Path, tmp_path: Path) -> None:
    weights = hf / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    check(tmp_path, model(f"hf: {hf}"), "models.0", "cut short, 100000 of", "fetch it again")


def test_missing_tokenizer(hf: Path, tmp_path: Path) -> None:
    (hf / "tokenizer.json").unlink()
    check(tmp_path, model(f"hf: {hf}"), "models.0", "no tokenizer", "`tokenizer: FILE`")


def test_gguf_of_an_unsupported_architecture(tmp_path: Path) -> None:
    path = tmp_path / "falcon.gguf"
    write_gguf(path, architecture="falcon")
    check(tmp_path, model(f"gguf: {path}"), "models.0", "'falcon' isn't supported; llama, qwen2")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (recipe("group_size: 96"), "group_size 96 divides none of the model's widths (dim 64"),
        (recipe("max_context: 4096"), "max_context is 4096, the model was made for 2048"),
        (recipe("engine: stock, external_weights: true"), "external_weights needs `engine: farm`"),
        (recipe("options: {debug.verbose: true}"), "recipes.mine.options: are for `engine: stock`"),
        (recipe("linear: 3w"), "recipes.mine.linear: Input should be 'none', '8da4w'"),
        (recipe("max_contxt: 64"), "recipes.mine.max_contxt: unknown key; allowed: base, engine"),
        (["--set", "recipes={portable-fp32: {base: xnnpack-fp32}}"], "give yours another"),
        (["--set", "recipes={mine: {base: q3}}"], "recipes.mine.base: no recipe 'q3'"),
    ],
)
def test_recipe_that_can_not_work(words: list[str], says: str, tmp_path: Path) -> None:
    check(tmp_path, words, says)


def test_combination_that_can_not_work_may_be_left_out(tmp_path: Path) -> None:
    both = ["--set", "matrix.recipe=[xnnpack-8da4w, xnnpack-8da4w-g128]"]
    hint = "exclude: [{model: tiny-llama, recipe: xnnpack-8da4w-g128}]"
    check(tmp_path, both, "matrix.recipe.1", "divides none", f"`{hint}`")
    farm = Farm(tmp_path / "home", tmp_path)
    done = farm(
        "plan", TINY, *both, "--set", hint.replace(": ", "=", 1), "--select", "transport=local"
    )
    assert done.returncode == 0, done.stderr
    assert "xnnpack-8da4w-g128" in done.stdout, "shown as left out"
