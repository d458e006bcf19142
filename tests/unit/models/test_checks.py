from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from farm.core.artifact import Recipe
from farm.core.errors import ExportError, UnknownName
from farm.host.limits import Limits
from models import known, recipes
from models.config import RopeScaling, check_config
from models.exporting import memory
from models.exporting.memory import artifact_bytes, check_memory, export_bytes
from models.lowering.checks import check_recipe, export_warnings, stores_tied_twice

ENTRY = known.get("tiny-llama")
assert ENTRY.seeded is not None
CONFIG = ENTRY.seeded[0]
RECIPE = recipes.get("xnnpack-8da4w")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (replace(RECIPE, max_context=4096), "max_context is 4096, the model was made for 2048"),
        (replace(RECIPE, max_seq=1024), "max_seq is 1024; it has to be between 1 and"),
        (replace(RECIPE, max_seq=0), "max_seq is 0"),
        (replace(RECIPE, group_size=128), "divides none of the model's widths"),
        (replace(RECIPE, embedding_group=48), "embedding_group 48 doesn't divide"),
        (replace(RECIPE, wide=("feed_forward.w9",)), "this model has no Linears 'feed_forward.w9'"),
        (replace(RECIPE, wide=("output", "layers.2")), "no Linears 'layers.2'"),
        (replace(RECIPE, linear="int8", wide=("output",)), "wide output is for recipes whose"),
        (replace(RECIPE, engine="stock", wide=("output",)), "wide needs `engine: farm`"),
        (replace(RECIPE, backend="vulkan"), "set `engine: stock`"),
        (replace(RECIPE, backend="portable"), "the portable kernels have no 8da4w Linear"),
        (replace(RECIPE, quantised_kv_cache=True, custom_sdpa=False), "needs custom_sdpa"),
        (replace(RECIPE, engine="stock", external_weights=True), "needs `engine: farm`"),
        (replace(RECIPE, engine="stock", max_context=4096), "the model was made for 2048"),
    ],
)
def test_refusals_name_field_and_remedy(recipe: Recipe, words: str) -> None:
    with pytest.raises(ExportError) as caught:
        check_recipe(CONFIG, recipe)
    assert words in str(caught.value)
    assert recipe.name in str(caught.value)


LLAMA3 = RopeScaling(8.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_factors": (2.0,) * 8}, "engine stock has no key for this model's RoPE factors"),
        ({"rope_scaling": LLAMA3}, "no scaled RoPE for checkpoints of the hub's format"),
        (
            {
                "rope_scaling": replace(LLAMA3, original_context=4096),
                "rope_pairing": "interleaved",
            },
            "scales RoPE from 8192 tokens and low_freq_factor 1, this model from 4096 and 1",
        ),
    ],
)
def test_rope_that_stock_would_leave_out_is_refused(change: dict[str, Any], words: str) -> None:
    config = replace(CONFIG, **change)
    check_recipe(config, RECIPE)
    with pytest.raises(ExportError, match=words) as caught:
        check_recipe(config, replace(RECIPE, engine="stock"))
    assert "use `engine: farm`" in caught.value.message
    like_metas = replace(CONFIG, rope_scaling=LLAMA3, rope_pairing="interleaved")
    check_recipe(like_metas, replace(RECIPE, engine="stock"))


def test_every_built_in_recipe_fits_some_registered_shape() -> None:
    wide = replace(CONFIG, dim=256, hidden=512, heads=8, head_dim=32)
    for recipe in recipes.RECIPES.values():
        if recipe.engine == "farm":
            check_recipe(wide, recipe)


def test_warnings_tell_of_limits_and_doubled_weights() -> None:
    tied = replace(CONFIG, tied=True)
    found = export_warnings(tied, RECIPE)
    assert any("stored twice" in text for text in found)
    assert any("limited to 512 of the model's 2048" in text for text in found)
    whole = replace(RECIPE, max_context=2048, max_seq=2048)
    assert export_warnings(CONFIG, whole) == ()


@pytest.mark.parametrize(
    ("recipe", "twice"),
    [
        (RECIPE, True),
        (replace(RECIPE, external_weights=True), True),
        (recipes.get("xnnpack-fp32"), True),
        (replace(recipes.get("xnnpack-fp32"), external_weights=True), False),
        (replace(recipes.get("xnnpack-fp32"), engine="stock"), True),
        (recipes.get("portable-fp32"), False),
    ],
)
def test_tied_weights_that_stay_equal_bytes_are_stored_once(recipe: Recipe, twice: bool) -> None:
    assert stores_tied_twice(replace(CONFIG, tied=True), recipe) is twice
    assert not stores_tied_twice(CONFIG, recipe)
    told = any("stored twice" in text for text in export_warnings(CONFIG, recipe))
    assert not told


def test_memory_is_estimated_before_starting() -> None:
    llama_8b = replace(
        CONFIG,
        dim=4096,
        layers=32,
        heads=32,
        kv_heads=8,
        head_dim=128,
        hidden=14336,
        vocab=128256,
        max_context=8192,
    )
    assert 4.2e9 < artifact_bytes(llama_8b, RECIPE) < 5.2e9
    assert export_bytes(llama_8b, RECIPE) < 24 * 2**30
    assert check_memory(llama_8b, RECIPE, available=64 * 2**30) == ()
    (warning,) = check_memory(llama_8b, RECIPE, available=export_bytes(llama_8b, RECIPE) + 1)
    assert "GiB are free" in warning
    with pytest.raises(ExportError, match="use a machine with more memory"):
        check_memory(llama_8b, RECIPE, available=4 * 2**30)


def test_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory.available_bytes()
    monkeypatch.setattr(memory, "read_limits", lambda: Limits(memory_bytes=64 << 20, cpus=None))
    assert memory.available_bytes() == 64 << 20 < whole
    with pytest.raises(ExportError, match=r"needs about .* GiB, 0\.1 GiB are free"):
        check_memory(CONFIG, RECIPE)


def test_parameters_are_counted_like_the_published_number() -> None:
    smollm = replace(
        CONFIG,
        dim=576,
        layers=30,
        heads=9,
        kv_heads=3,
        head_dim=64,
        hidden=1536,
        vocab=49152,
        tied=True,
    )
    assert smollm.parameters == known.get("smollm2-135m").parameters


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"heads": 4, "kv_heads": 3}, "can't share 3"),
        ({"head_dim": 15}, "RoPE needs an even number"),
    ],
)
def test_contradicting_config_is_refused(change: dict[str, int], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        check_config(replace(CONFIG, **change), "here")  # type: ignore[arg-type]


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="smollm2-135m"):
        known.get("lama")
    with pytest.raises(UnknownName, match="xnnpack-8da4w"):
        recipes.get("xnpack")


def test_registry_holds_the_families() -> None:
    wanted = [
        "smollm2-360m",
        "smollm2-1.7b",
        "llama-2-7b",
        "llama-3-8b",
        "llama-3.1-8b",
        "llama-3.2-1b",
    ]
    wanted += [
        "llama-3.2-1b",
        "llama-3.2-3b",
        "stories110m",
        "tinyllama-1.1b",
        "qwen2.5-0.5b",
        "qwen3-4b",
    ]
    assert set(wanted) <= known.MODELS.keys()
    offline = {name for name, entry in known.MODELS.items() if entry.offline}
    assert offline == {"tiny-llama", "tiny-llama-deep", "smollm2-135m"}
