"""What is exported computes what the eager model computes, by every recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from farm.core.artifact import Recipe
from farm.judge.weights import weight_fault
from models import known, recipes
from models.checkpoint import layer_tensors, outer_tensors
from models.config import ModelConfig
from models.eager.layer_replay import Recording
from models.sources.seeded import SeededCheckpoint
from tests.integration.models import exports
from tests.integration.models.exports import Program

pytestmark = pytest.mark.export

ENTRY = known.get("tiny-llama")
assert ENTRY.seeded is not None
TINY: ModelConfig = ENTRY.seeded[0]
W8DA4 = recipes.get("xnnpack-8da4w")

#: Recipe, and the largest mean KL to eager_fp32 that its quantisation may cost on this model.
CASES = [
    (recipes.get("xnnpack-fp32"), 1e-9),
    (W8DA4, 0.1),
    (recipes.get("xnnpack-8da4w-g64"), 0.1),
    (replace(recipes.get("xnnpack-8da4w-emb4"), name="emb4-kv8", quantised_kv_cache=True), 0.15),
    (recipes.get("xnnpack-8da4w-static"), 0.1),
    (recipes.get("xnnpack-4w"), 0.15),
    (recipes.get("xnnpack-8da4w-rot-hqq-out8"), 0.1),
    (replace(W8DA4, name="wide", wide=("attention.wv", "layers.1.feed_forward.w2", "output")), 0.1),
    (recipes.get("xnnpack-int8"), 0.005),
    (recipes.get("portable-fp32"), 1e-9),
    (replace(recipes.get("portable-fp32"), name="portable-plain-sdpa", custom_sdpa=False), 1e-9),
]


@pytest.fixture(scope="module")
def tiny() -> SeededCheckpoint:
    return SeededCheckpoint(TINY, 0)


class Made(NamedTuple):
    """An export of the tiny model, together with one layer."""

    exported: Any
    layer: Recording


@pytest.fixture(scope="module")
def made(
    tiny: SeededCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Recipe], Made]:
    """Export the tiny model by a recipe, once for all tests."""
    done: dict[str, Made] = {}

    def make(recipe: Recipe) -> Made:
        if recipe.name not in done:
            layer = exports.recorded(tiny, recipe)
            program = tmp_path_factory.mktemp(recipe.name) / "model.pte"
            done[recipe.name] = Made(exports.export(tiny, recipe, program, layer), layer)
        return done[recipe.name]

    return make


@pytest.mark.parametrize(("recipe", "cost"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_program_computes_what_eager_computes(
    recipe: Recipe,
    cost: float,
    tiny: SeededCheckpoint,
    made: Callable[[Recipe], Made],
    tmp_path: Path,
) -> None:
    exported, layer = made(recipe)
    program = Program(exported.program)
    expected = exports.eager(tiny, recipe, tmp_path)
    decoded = program.decode()
    near = (decoded - expected).abs().amax(1) <= 1e-4
    if recipe.rotated or recipe.wide:
        # Where a rounding of activations falls the other way, the tokens after it differ.
        assert near[0]
        assert exports.kl_mean(expected, decoded) <= 5e-3
    else:
        assert near.all()
    assert exports.kl_mean(exports.eager(tiny, None, tmp_path), decoded) <= cost
    if recipe.dynamic_shape:
        assert exports.kl_mean(expected[[29, 39]], program.prefill()) <= 1e-3
    if recipe.backend == "portable":
        assert exported.delegation.delegated == 0
        assert exported.weights == ()
    else:
        assert exported.delegation.delegated > 0.6 * exported.delegation.total
        check_read_back(tiny.config, exported)
    found = exports.replayed(exported.replay, layer)
    # One rounding that falls the other way is a step of one activation.
    bound = 1e-2 if recipe.wide else 1e-4
    assert float((found - layer.inputs - layer.added).abs().max()) <= bound
    assert float(layer.added.abs().mean()) > 0.1, "the layer does something"
    narrow = recipe.group_size == 64
    assert exported.unquantised == (
        ("layers.0.feed_forward.w2", "layers.1.feed_forward.w2") if narrow else ()
    )


def check_read_back(config: ModelConfig, exported: Any) -> None:
    """Every tensor of the checkpoint was found in the files, as right as its integers allow."""
    found = {check.name: weight_fault(check) for check in exported.weights}
    assert {name: fault for name, fault in found.items() if fault} == {}
    names = {*outer_tensors(config), "output.weight", "rope.cos_global", "rope.sin_global"}
    for layer in range(config.layers):
        names |= set(layer_tensors(config, layer))
    assert set(found) == names
    assert len(found) == len(exported.weights)


def test_metadata_methods_are_stock_names(
    tiny: SeededCheckpoint, made: Callable[[Recipe], Made]
) -> None:
    program = Program(made(recipes.get("portable-fp32")).exported.program)
    assert program.constant("get_vocab_size") == [TINY.vocab]
    assert program.constant("get_max_context_len") == [512]
    assert program.constant("get_max_seq_len") == [512]
    assert program.constant("get_n_layers") == [TINY.layers]
    assert program.constant("get_bos_id") == [tiny.tokenizer.bos_id]
    assert program.constant("get_eos_ids") == list(tiny.tokenizer.stop_ids)
    assert program.constant("use_kv_cache") == [True]
    assert program.constant("use_sdpa_with_kv_cache") == [True]
    assert program.constant("enable_dynamic_shape") == [True]


def test_two_exports_are_equal_also_when_a_layer_is_exported_with_one(
    tiny: SeededCheckpoint, made: Callable[[Recipe], Made], tmp_path: Path
) -> None:
    exports.export(tiny, W8DA4, tmp_path / "alone.pte")
    programs = (made(W8DA4).exported.program, tmp_path / "alone.pte")
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in programs}) == 1


@pytest.mark.parametrize("backend", ["xnnpack", "portable"])
def test_wide_rows_in_fp32_are_summed_in_pieces(
    backend: str, made: Callable[[Recipe], Made], tmp_path: Path
) -> None:
    recipe = recipes.get(f"{backend}-fp32")
    wide = SeededCheckpoint(replace(TINY, hidden=1000, qkv_bias=True), 0)
    exported = exports.export(wide, recipe, tmp_path / "model.pte")
    program = Program(tmp_path / "model.pte")
    expected = exports.eager(wide, recipe, tmp_path)
    assert float((program.decode() - expected).abs().max()) <= 1e-5
    assert float((program.prefill() - expected[[29, 39]]).abs().max()) <= 1e-5
    narrow = made(recipe).exported
    if backend == "xnnpack":
        check_read_back(wide.config, exported)
    # In each layer the last projection is four slices, four Linears and three sums.
    more = exported.delegation.total - narrow.delegation.total
    assert more >= 10 * TINY.layers


@pytest.mark.parametrize(
    ("recipe", "tables"),
    [
        (recipes.get("portable-fp32"), 1),
        (replace(recipes.get("xnnpack-fp32"), external_weights=True), 1),
        (recipes.get("xnnpack-fp32"), 2),
    ],
    ids=["portable", "ptd", "pte"],
)
def test_tied_weights_are_stored_as_often_as_the_warnings_say(
    recipe: Recipe, tables: int, tmp_path: Path
) -> None:
    config = replace(TINY, layers=1, tied=True)
    exported = exports.export(SeededCheckpoint(config, 0), recipe, tmp_path / "model.pte")
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    table, rest = 4 * config.vocab * config.dim, 4 * (config.parameters - config.vocab * config.dim)
    assert tables * table + rest < size < (tables + 1) * table + rest
    assert any("stored twice" in text for text in exported.warnings) == (tables == 2)
    assert (exported.data is not None) == recipe.external_weights
    if recipe.backend == "xnnpack":
        check_read_back(config, exported)


@pytest.mark.parametrize("recipe", [W8DA4, recipes.get("xnnpack-fp32")], ids=lambda r: r.name)
def test_renamed_delegate_equals_one_that_was_lowered_itself(recipe: Recipe) -> None:
    """The heart of the engine: layer 2 from layer 1's program, byte for byte."""
    with exports.library_noise():
        import torch

        from models.eager.parts import PartBuilder, synthetic_reader
        from models.eager.quantise import formats
        from models.lowering.delegates import lower_part, part_constants, sibling
        from models.lowering.signatures import part_example, signature_program

        config = replace(TINY, layers=3, hidden=1000, qkv_bias=True, qk_norm=True)
        form_of = formats(recipe)
        model = SeededCheckpoint(config, 1)
        example = part_example(config, "between", recipe)
        with torch.no_grad():
            stand_in = PartBuilder(config, synthetic_reader(config), form_of).build(1)
            shared = lower_part(stand_in, example.inputs, example.dynamic_shapes)
            layer = PartBuilder(config, model.tensor, form_of).build(2)
            made = sibling(
                shared, part_constants(layer), signature_program(config, "between", example)
            )
            own = lower_part(layer, example.inputs, example.dynamic_shapes)
    assert made.processed_bytes == own.program
    assert shared.program != own.program
    held = made.named_data_store_output
    assert set(held.pte_data) == {*own.names.values(), *(item.key for item in own.literals)}


@pytest.mark.parametrize(
    ("architecture", "recipe"),
    [("qwen2", W8DA4), ("qwen2", recipes.get("xnnpack-4w")), ("qwen3", W8DA4)],
    ids=["qwen2", "qwen2-4w", "qwen3"],
)
def test_other_families_export(
    architecture: Literal["qwen2", "qwen3"], recipe: Recipe, tmp_path: Path
) -> None:
    config = replace(
        TINY,
        architecture=architecture,
        layers=3,
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
        tied=architecture == "qwen2",
    )
    model = SeededCheckpoint(config, 2)
    exports.export(model, recipe, tmp_path / "model.pte")
    decoded = Program(tmp_path / "model.pte").decode()
    # A rounding of activations that falls the other way is amplified in a deeper model.
    bound = 5e-3 if recipe.linear == "8da4w" else 1e-6
    assert exports.kl_mean(exports.eager(model, recipe, tmp_path), decoded) <= bound
