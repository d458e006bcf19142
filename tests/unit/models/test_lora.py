"""Adapters in peft's format: added exactly, or refused by key or tensor."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from farm.commands.known_good import measure_bound
from farm.core.artifact import ModelSource
from farm.core.errors import ExportError
from models.checkpoint import Checkpoint
from models.reference.peer import cannot_ask
from models.reference.source import judged_by
from models.sources import open_source
from tests.unit.models.test_sources import hf

__all__ = ["hf"]

#: As peft 0.17 saves it.
CONFIG: dict[str, Any] = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "org/base",
    "bias": "none",
    "corda_config": None,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 16,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "qalora_group_size": 16,
    "r": 4,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["q_proj", "down_proj"],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}
Q, DOWN = "layers.0.self_attn.q_proj", "layers.0.mlp.down_proj"
Tensors = dict[str, numpy.ndarray[Any, Any]]


def factors(stem: str, rank: int, rows: int, columns: int, seed: int) -> Tensors:
    source = numpy.random.default_rng(seed)
    name = f"base_model.model.model.{stem}"
    return {
        f"{name}.lora_A.weight": source.standard_normal((rank, columns), "f4"),
        f"{name}.lora_B.weight": source.standard_normal((rows, rank), "f4"),
    }


def write(folder: Path, tensors: Tensors, **change: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | change))
    return folder


def good() -> Tensors:
    return factors(Q, 4, 256, 256, 1) | factors(DOWN, 4, 256, 256, 2)


def opened(base: Path, adapter: Path, cache: Path) -> Checkpoint:
    source = ModelSource("ours", kind="hf", path=str(base), adapter=str(adapter))
    return open_source(source, cache, lambda _done, _total: None)


@pytest.mark.parametrize(
    ("change", "scale_of_q", "scale_of_down"),
    [
        ({}, 4.0, 4.0),
        ({"lora_alpha": 6}, 1.5, 1.5),
        ({"use_rslora": True}, 8.0, 8.0),
        ({"alpha_pattern": {"q_proj": 2, ".*": 1}}, 0.5, 0.25),
        ({"r": 9, "rank_pattern": {"self_attn.q_proj": 4, "down_proj": 4}}, 4.0, 4.0),
        ({"alpha_pattern": {"model.layers.0.mlp.down_proj": 8}}, 4.0, 2.0),
    ],
)
def test_an_adapter_is_added_exactly(
    change: dict[str, Any], scale_of_q: float, scale_of_down: float, hf: Path, tmp_path: Path
) -> None:
    base, found = load_file(hf / "model.safetensors"), good()
    checkpoint = opened(hf, write(tmp_path / "lora", found, **change), tmp_path)
    for stem, name, scale in (
        (Q, "layers.0.attention.wq.weight", scale_of_q),
        (DOWN, "layers.0.feed_forward.w2.weight", scale_of_down),
    ):
        low, high = (found[f"base_model.model.model.{stem}.lora_{part}.weight"] for part in "AB")
        wanted = base[f"model.{stem}.weight"].astype("f8") + scale * (high.astype("f8") @ low)
        numpy.testing.assert_allclose(checkpoint.tensor(name).numpy(), wanted, atol=1e-4)
    same = checkpoint.tensor("layers.0.attention.wk.weight").numpy()
    numpy.testing.assert_array_equal(same, base["model.layers.0.self_attn.k_proj.weight"])
    names = {file.name for file in checkpoint.files}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= names


KEYS: dict[str, Any] = {
    "use_dora": True,
    "bias": "lora_only",
    "modules_to_save": ["lm_head"],
    "init_lora_weights": "pissa",
    "fan_in_fan_out": True,
    "peft_type": "IA3",
    "layer_replication": [[0, 1], [0, 1]],
    "trainable_token_indices": [1],
    "target_parameters": ["mlp.experts.down_proj"],
    "eva_config": {"rho": 2.0},
    "alora_invocation_tokens": [1],
    "mystery": 1,
}


@pytest.mark.parametrize("key", KEYS)
def test_keys_that_do_more_are_refused(key: str, hf: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "lora", good(), **{key: KEYS[key]})
    with pytest.raises(ExportError, match=rf"lora/adapter_config\.json: {key} is"):
        opened(hf, folder, tmp_path)


NAME = f"base_model.model.model.{Q}"
TENSORS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "half": (lambda t: t.pop(f"{NAME}.lora_A.weight"), "q_proj has lora_B alone"),
    "rank": (
        lambda t: t.update(factors(Q, 8, 256, 256, 3)),
        r"q_proj have shapes \[8, 256\] and \[256, 8\]",
    ),
    "shape": (lambda t: t.update(factors(Q, 4, 128, 256, 3)), r"q_proj have shapes"),
    "beyond": (
        lambda t: t.update(factors(Q.replace("0", "1"), 4, 256, 256, 3)),
        r"layers\.1\.self_attn\.q_proj\.lora_A\.weight would not be used",
    ),
    "norm": (
        lambda t: t.update(factors("layers.0.input_layernorm", 4, 256, 256, 3)),
        r"input_layernorm\.lora_A\.weight would not be used",
    ),
    "embedding": (
        lambda t: t.update(factors("embed_tokens", 4, 512, 256, 3)),
        r"embed_tokens\.lora_A\.weight would not be used",
    ),
    "whole module": (
        lambda t: t.update({"base_model.model.lm_head.weight": numpy.ones((512, 256), "f4")}),
        "lm_head.weight would not be used",
    ),
    "magnitude": (
        lambda t: t.update({f"{NAME}.lora_magnitude_vector": numpy.ones(256, "f4")}),
        "lora_magnitude_vector would not be used",
    ),
    "integers": (
        lambda t: t.update({f"{NAME}.lora_A.weight": numpy.ones((4, 256), "i1")}),
        "lora_A.weight is I8",
    ),
    "nothing": (lambda t: t.clear(), "has no tensors"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit_are_refused(name: str, hf: Path, tmp_path: Path) -> None:
    change, words = TENSORS[name]
    found = good()
    change(found)
    with pytest.raises(ExportError, match=words) as refused:
        opened(hf, write(tmp_path / "lora", found), tmp_path)
    assert str(tmp_path / "lora") in refused.value.message


NUMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "no rank": ({"r": 0}, r"r \(or rank_pattern\) of .*_proj is 0, not above 0"),
    "pattern": ({"rank_pattern": {"q_proj": 0}}, r"of .*q_proj is 0, not above 0"),
    "alpha": ({"lora_alpha": math.nan}, "lora_alpha is nan, a finite number"),
    "one alpha": ({"alpha_pattern": {"q_proj": math.inf}}, r"alpha_pattern\.q_proj is inf"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_scales_that_are_no_numbers_are_refused(name: str, hf: Path, tmp_path: Path) -> None:
    change, words = NUMBERS[name]
    with pytest.raises(ExportError, match=rf"lora/adapter_config\.json: .*{words}"):
        opened(hf, write(tmp_path / "lora", good(), **change), tmp_path)


def test_a_pattern_of_the_output_has_peft_s_name_of_it(hf: Path, tmp_path: Path) -> None:
    base, found = load_file(hf / "model.safetensors"), factors("lm_head", 4, 512, 256, 1)
    found = {name.replace("model.model.", "model."): value for name, value in found.items()}
    base["lm_head.weight"] = numpy.ones((512, 256), "f4")
    save_file(base, hf / "model.safetensors")
    config = json.loads((hf / "config.json").read_text()) | {"tie_word_embeddings": False}
    (hf / "config.json").write_text(json.dumps(config))
    patterns = {"model.lm_head": 1, "^lm_head": 8}
    checkpoint = opened(hf, write(tmp_path / "lora", found, alpha_pattern=patterns), tmp_path)
    low, high = (found[f"base_model.model.lm_head.lora_{part}.weight"] for part in "AB")
    wanted = 1.0 + 2.0 * (high.astype("f8") @ low)
    numpy.testing.assert_allclose(checkpoint.tensor("output.weight").numpy(), wanted, atol=1e-4)


def test_a_tokenizer_of_the_adapter_s_own_is_told(hf: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "lora", good())
    (folder / "tokenizer.json").write_bytes((hf / "tokenizer.json").read_bytes())
    assert not opened(hf, folder, tmp_path).notes
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (note,) = opened(hf, folder, tmp_path).notes
    assert note.startswith(f"{folder}: chat_template.jinja differ from those beside {hf}")


def test_an_adapted_model_is_not_judged_by_its_base(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "lora", good())
    checkpoint = opened(hf, folder, tmp_path)
    assert judged_by(checkpoint) == ()
    base = open_source(ModelSource("ours", "hf", str(hf)), tmp_path, lambda _done, _total: None)
    assert judged_by(base) == base.files
    adapted = ModelSource("ours", "hf", str(hf), adapter=str(folder))
    with pytest.raises(ExportError, match="whole weights, not to a base with an adapter"):
        measure_bound(adapted, "xnnpack-8da4w", tmp_path / "bounds.json")
    monkeypatch.setitem(sys.modules, "peft", None)
    there = ModuleType("transformers")
    there.__spec__ = ModuleSpec("transformers", None)
    monkeypatch.setitem(sys.modules, "transformers", there)
    assert "pip install peft" in cannot_ask(checkpoint)
    assert "peft" not in cannot_ask(base)


def test_numbers_that_are_not_finite_are_named(hf: Path, tmp_path: Path) -> None:
    found = good()
    found[f"{NAME}.lora_B.weight"][3, 1] = numpy.inf
    checkpoint = opened(hf, write(tmp_path / "lora", found), tmp_path)
    with pytest.raises(ExportError, match=r"q_proj\.lora_B\.weight has 1 numbers that aren't"):
        checkpoint.tensor("layers.0.attention.wq.weight")
