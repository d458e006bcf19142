"""Names of a config, looked up before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.artifact import ModelSource, Toolchain
from farm.core.errors import ConfigError
from farm.core.spec import Matrix, RecipeChange, RunSpec, SelfCheckSpec
from farm.planning.catalog import resolve_names
from farm.planning.exportable import check_exports

SPEC = RunSpec(
    name="r",
    models=(ModelSource("tiny-llama"),),
    toolchains=(Toolchain("default"),),
    matrix=Matrix(recipe=("xnnpack-fp32", "xnnpack-8da4w")),
    source="run.yaml",
)


@pytest.mark.parametrize(
    ("specifier", "words"),
    [("latest", "neither a version specifier"), ("/nowhere/*.whl", "no wheel matches")],
)
def test_toolchain_that_pip_could_not_be_asked_for(specifier: str, words: str) -> None:
    spec = replace(SPEC, toolchains=(Toolchain("old", specifier),))
    with pytest.raises(ConfigError, match=rf"run\.yaml: toolchains\.old\.executorch: .*{words}"):
        resolve_names(spec)


def test_memory_of_exports_grows_with_weights_and_their_bits(tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes(bytes(4_000_000))
    ours = ModelSource("ours", kind="hf", path=str(tmp_path))
    hub = ModelSource("hub", kind="hf", path="someone/something")
    found = resolve_names(replace(SPEC, models=(*SPEC.models, ours, hub))).export_bytes
    assert found["ours", "xnnpack-fp32"] > found["ours", "xnnpack-8da4w"]
    assert found["ours", "xnnpack-fp32"] > found["tiny-llama", "xnnpack-fp32"] > 500 << 20
    assert ("hub", "xnnpack-fp32") not in found, "nobody can tell before it is fetched"


def test_runner_says_which_backends_it_has() -> None:
    assert set(resolve_names(SPEC).runners["executorch"].backends) == {"xnnpack", "portable"}


def test_a_planted_recipe_that_the_model_does_not_fit_is_refused_before_the_night(
    tmp_path: Path,
) -> None:
    longer = RecipeChange("slow", "xnnpack-8da4w", (("max_context", 4096),))
    spec = replace(SPEC, recipes=(longer,), self_check=SelfCheckSpec(7, "slow"))
    says = r"run\.yaml: self_check\.slower: .*max_context is 4096, the model was made for 2048"
    with pytest.raises(ConfigError, match=says):
        check_exports(spec, resolve_names(spec), tmp_path)
    fits = replace(spec, recipes=(replace(longer, fields=(("max_context", 2048),)),))
    check_exports(fits, resolve_names(fits), tmp_path)
