"""Families beside Llama and Qwen: transformers' logits, exports that equal eager, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from farm.core.artifact import ModelSource, Recipe
from farm.core.errors import ExportError
from models import recipes
from models.lowering.checks import check_recipe
from models.reference.logits import eager_logits
from models.sources import open_source
from models.sources.hf import HfCheckpoint
from models.sources.hf_families import FAMILIES
from models.texts import forced_tokens, read_text
from models.tokenizer import Tokenizer, byte_tokenizer
from tests.integration.models import architectures, exports, families
from tests.integration.models import checkpoints as made
from tests.integration.models.architectures import ARCHITECTURES

pytestmark = pytest.mark.export

TOLERANCE = 1e-4
TEXT = forced_tokens(Tokenizer(byte_tokenizer(made.VOCAB)), read_text("builtin"), 96)

Open = Callable[[str], HfCheckpoint]


def opened(folder: Path) -> HfCheckpoint:
    source = ModelSource("ours", kind="hf", path=str(folder))
    checkpoint = open_source(source, folder.parent / "cache", lambda _done, _total: None)
    assert isinstance(checkpoint, HfCheckpoint)
    return checkpoint


def ours(checkpoint: HfCheckpoint) -> torch.Tensor:
    target = checkpoint.folder.parent / "logits.f32"
    return families.read_logits(target, eager_logits(checkpoint, None, TEXT, target))


def theirs(model: Any) -> torch.Tensor:
    with made.library_noise(), torch.no_grad():
        model.set_attn_implementation("eager")
        logits: torch.Tensor = model(torch.tensor([TEXT])).logits[0].float()
    return logits


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, torch.Tensor]]:
    """Folder of a model of transformers and its logits, made once."""
    done: dict[str, tuple[Path, torch.Tensor]] = {}

    def make(name: str) -> tuple[Path, torch.Tensor]:
        if name not in done:
            family, extra = ARCHITECTURES[name]
            folder = tmp_path_factory.mktemp(name) / "model"
            model = made.make(family, **extra)
            made.save(model, folder)
            done[name] = folder, theirs(model)
        return done[name]

    return make


Saved = Callable[[str], tuple[Path, torch.Tensor]]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_transformers(name: str, saved: Saved) -> None:
    folder, expected = saved(name)
    checkpoint = opened(folder)
    assert float(expected.std()) > 0.3, "logits without spread would hide errors"
    assert families.max_difference(ours(checkpoint), expected) <= TOLERANCE
    # Qwen2's tokenizer cuts text by its class, which the words of this test's file don't say.
    told = [note for note in checkpoint.notes if "Qwen2Tokenizer" not in note]
    assert len(told) == (name == "phi4-mini")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_version_4_with_nulls_is_the_same_model(name: str, saved: Saved, tmp_path: Path) -> None:
    plain, expected = saved(name)
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    made.edit(folder, architectures.as_version_4)
    checkpoint = opened(folder)
    assert checkpoint.config == opened(plain).config
    with made.library_noise() as transformers:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert families.max_difference(theirs(model.eval()), expected) <= TOLERANCE


def test_tied_weights_that_are_stored_twice(saved: Saved, tmp_path: Path) -> None:
    plain, expected = saved("gemma3")
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)

    def store(found: dict[str, torch.Tensor]) -> None:
        found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()

    made.edit_tensors(folder, store)
    checkpoint = opened(folder)
    assert checkpoint.config.tied
    assert checkpoint.notes == ()
    assert families.max_difference(ours(checkpoint), expected) <= TOLERANCE


def test_bf16_shards_of_fused_projections(tmp_path: Path) -> None:
    family, extra = ARCHITECTURES["phi3"]
    made.save(made.make(family, **extra).bfloat16(), tmp_path / "model", "60KB")
    with made.library_noise() as transformers:
        load = transformers.AutoModelForCausalLM.from_pretrained
        model = load(tmp_path / "model", dtype=torch.float32).eval()
    found = ours(opened(tmp_path / "model"))
    assert families.max_difference(found, theirs(model)) <= TOLERANCE


#: What a family does, taken out: the comparison has to see each.
CHOICES: list[tuple[str, dict[str, Any]]] = [
    ("mistral", {"window": 0}),
    ("mistral", {"window": architectures.WINDOW + 1}),
    ("ministral", {"windowed": (0,)}),
    ("phi4-mini", {"rotary_dim": 0, "rope_factors": ()}),
    ("phi4-mini", {"rope_scale": 1.0}),
    ("phi4-mini", {"rope_factors": ()}),
    ("gemma2", {"score_cap": 0.0}),
    ("gemma2", {"logit_cap": 0.0}),
    ("gemma2", {"activation": "silu"}),
    ("gemma3", {"local_rope_theta": 0.0}),
    ("gemma3", {"embedding_scale": 1.0}),
    ("gemma3", {"attention_scale": 0.0}),
    ("smollm3", {"unrotated": ()}),
    ("granite", {"residual_scale": 1.0}),
    ("granite", {"logit_scale": 1.0}),
    ("qwen3-yarn", {"rope_scaling": None}),
    ("llama-yarn", {"rope_scale": 1.0}),
]


@pytest.mark.parametrize(("name", "change"), CHOICES, ids=str)
def test_each_choice_would_be_missed(name: str, change: dict[str, Any], saved: Saved) -> None:
    folder, expected = saved(name)
    checkpoint = opened(folder)
    checkpoint.config = replace(checkpoint.config, **change)
    assert families.max_difference(ours(checkpoint), expected) > 10 * TOLERANCE


FP32 = replace(recipes.get("xnnpack-fp32"), max_context=64, max_seq=64)
INT8_CACHE = replace(
    recipes.get("xnnpack-8da4w"), max_context=64, max_seq=64, quantised_kv_cache=True
)
#: Texts of exports.TOKENS (40) are longer than the windows.
EXPORTS = [
    ("mistral", INT8_CACHE),
    ("phi4-mini", FP32),
    ("gemma2", FP32),
    ("gemma3", FP32),
    ("smollm3", FP32),
]


@pytest.mark.parametrize(("name", "recipe"), EXPORTS, ids=lambda v: getattr(v, "name", v))
def test_program_computes_what_eager_computes(
    name: str, recipe: Recipe, saved: Saved, tmp_path: Path
) -> None:
    checkpoint = opened(saved(name)[0])
    layer = exports.recorded(checkpoint, recipe)
    exported = exports.export(checkpoint, recipe, tmp_path / "model.pte", layer)
    program = exports.Program(exported.program)
    expected = exports.eager(checkpoint, recipe, tmp_path)
    assert float((program.decode() - expected).abs().max()) <= TOLERANCE
    assert exports.kl_mean(expected[[29, 39]], program.prefill()) <= 1e-6
    found = exports.replayed(exported.replay, layer)
    assert float((found - layer.inputs - layer.added).abs().max()) <= TOLERANCE
    if recipe.backend == "xnnpack":
        assert exported.delegation.delegated > 0.5 * exported.delegation.total
    fused = name != "gemma2" and recipe.custom_sdpa
    assert program.constant("use_sdpa_with_kv_cache") == [fused]
    assert any("plain operators" in text for text in exported.warnings) == (name == "gemma2")


def test_fused_attention_with_whole_blocks_hidden() -> None:
    """The operator goes through keys 512 at a time; the window leaves whole blocks unseen."""
    with exports.library_noise():
        from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

        from models.eager.decoder import attend, hiding
    torch.manual_seed(0)
    length, window = 1300, 40
    q, k, v = (torch.randn(1, length, 2, 8) for _ in range(3))
    expected = attend(q, k, v, window)
    for position, count in ((1290, 1), (1100, 100), (0, 30)):
        rows = torch.arange(position, position + count).float()
        mask = hiding(rows, torch.arange(length).float(), window)
        part = q[:, position : position + count].contiguous()
        found = torch.ops.llama.custom_sdpa(part, k, v, position, mask, 0.0, False)
        assert torch.allclose(found, expected[:, position : position + count], atol=1e-5)


def test_what_cant_be_exported_as_it_is_computed_is_refused(saved: Saved) -> None:
    stock = replace(FP32, engine="stock")
    refused = [
        ("gemma2", INT8_CACHE, "no soft cap"),
        ("phi4-mini", replace(FP32, max_context=512), "the model was made for 256"),
        ("olmo2", stock, "no key for this model's qk_norm_whole"),
        ("mistral", stock, "no key for this model's windowed"),
        ("qwen2-yarn", stock, "no key for this model's rope_scale"),
    ]
    for name, recipe, words in refused:
        with pytest.raises(ExportError, match=words):
            check_recipe(opened(saved(name)[0]).config, recipe)
    narrow = replace(stock, max_context=architectures.WINDOW, max_seq=architectures.WINDOW)
    check_recipe(opened(saved("mistral")[0]).config, narrow)


Q, QKV = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.qkv_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"


def _key(**change: Any) -> Callable[[Path], None]:
    return lambda folder: made.edit(folder, lambda data: data.update(change))


def _renamed(folder: Path) -> None:
    made.edit_tensors(folder, lambda found: found.update({DOWN + "_v": found.pop(DOWN)}))


def _scaled(folder: Path) -> None:
    scale = {f"{DOWN}_scale_inv": torch.ones(1, 1)}
    made.edit_tensors(folder, lambda found: found.update(scale))


def _fewer_rows(folder: Path) -> None:
    made.edit_tensors(folder, lambda found: found.update({QKV: found[QKV][:-16].clone()}))


def _split(folder: Path) -> None:
    made.edit_tensors(folder, lambda found: found.update({Q: torch.ones(64, 64)}))


def _rope(**change: Any) -> Callable[[Path], None]:
    return lambda folder: made.edit(folder, lambda data: data["rope_parameters"].update(change))


COMMON: dict[str, Callable[[Path], None]] = {
    "unknown key": _key(attention_temperature=2.0),
    "experts": _key(num_local_experts=4),
    "not causal": _key(is_causal=False),
    "biases": _key(attention_bias=True),
    "renamed": _renamed,
    "scales": _scaled,
    "quantised": _key(quantization_config={"quant_method": "gptq"}),
}
OWN: dict[str, dict[str, Callable[[Path], None]]] = {
    "mistral": {
        "soft cap": _key(attn_logit_softcapping=30.0),
        "other layers": _key(layer_types=["full_attention", "sliding_attention"]),
        "half": _key(sliding_window=24.5),
        "flag": _key(use_sliding_window=False),
    },
    "ministral": {
        "chunks": _key(layer_types=["full_attention", "chunked_attention"]),
        "too few": _key(layer_types=["sliding_attention"]),
        "no window": _key(sliding_window=None),
    },
    "phi3": {
        "rows": _fewer_rows,
        "split": _split,
        "odd": _rope(partial_rotary_factor=0.7),
        "yarn": _rope(rope_type="yarn", factor=4.0),
        "code": _key(auto_map={"AutoModelForCausalLM": "modeling_other.Model"}),
        "bias": _key(lm_head_bias=True),
    },
    "phi4-mini": {
        "short": _rope(short_factor=[1.0]),
        "long": _rope(long_factor=None),
        "negative": _rope(short_factor=[-1.0] * 6),
    },
    "gemma2": {
        "activation": _key(hidden_activation="silu"),
        "both ways": _key(use_bidirectional_attention=True),
        "no scale": _key(query_pre_attn_scalar=0),
        "multiplier": _key(embedding_multiplier=2.0),
    },
    "gemma3": {
        "cap": _key(attn_logit_softcapping=50.0),
        "local": _rope(sliding_attention={"rope_type": "linear", "factor": 2.0}),
        "flat": _rope(rope_theta=1e4),
        "pattern": lambda folder: made.edit(
            folder, lambda data: data.update(layer_types=None, _sliding_window_pattern=3)
        ),
    },
    "smollm3": {
        "list": _key(no_rope_layers=[1, 1]),
        "share": _key(no_rope_layers=[1, 0.5, 1, 1]),
        "interval": _key(no_rope_layers=None, no_rope_layer_interval=0),
    },
    "granite": {"scale": _key(logits_scaling=0), "text": _key(residual_multiplier="0.5")},
    "olmo2": {"clip": _key(clip_qkv=8.0), "no norm": _key(qk_layernorm=True)},
    "qwen2-yarn": {
        "no factor": _rope(factor=None),
        "betas": _rope(beta_fast=1.0, beta_slow=32.0),
        "truncate": _rope(truncate="no"),
    },
}


@pytest.mark.parametrize("name", OWN)
def test_mutations_of_a_good_checkpoint_are_refused(
    name: str, saved: Saved, tmp_path: Path
) -> None:
    plain, _ = saved(name)
    opened(plain)
    own = "biases" if name == "qwen2-yarn" else ""  # whose projections have them anyway
    for label, change in {**COMMON, **OWN[name]}.items():
        if label == own:
            continue
        folder = tmp_path / label.replace(" ", "-")
        shutil.copytree(plain, folder)
        change(folder)
        with pytest.raises(ExportError) as refused:
            opened(folder)
        assert f"{folder}/" in refused.value.message, label


def test_every_family_is_compared() -> None:
    compared = {ARCHITECTURES[name][0].lower() for name in ARCHITECTURES}
    compared |= {"gemma3_text"} | {"llama", "qwen2", "qwen3"}
    assert set(FAMILIES) <= compared
