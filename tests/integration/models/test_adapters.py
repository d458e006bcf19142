"""Adapters on models of transformers: fused projections, and what the source check compares."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from farm.core.artifact import ModelSource
from models.reference.peer import ask, cannot_ask
from models.sources import open_source
from models.sources.hf import HfCheckpoint
from tests.integration.models import checkpoints as made
from tests.integration.models import families
from tests.integration.models.test_checkpoints import TOLERANCE, our_logits, their_logits

pytestmark = pytest.mark.export

STEMS = {
    "Llama": ("self_attn.v_proj", "mlp.gate_proj"),
    "Phi3": ("self_attn.qkv_proj", "mlp.gate_up_proj"),
}


@pytest.mark.parametrize("family", STEMS)
def test_an_adapter_is_what_a_merged_checkpoint_is(family: str, tmp_path: Path) -> None:
    model = made.make(family, pad_token_id=0)
    made.save(model, tmp_path / "base")
    tensors = {}
    for stem in STEMS[family]:
        name = f"model.layers.1.{stem}"
        weight = model.get_submodule(name).weight
        low, high = torch.randn(8, weight.shape[1]), 0.05 * torch.randn(weight.shape[0], 8)
        tensors[f"base_model.model.{name}.lora_A.weight"] = low
        tensors[f"base_model.model.{name}.lora_B.weight"] = high
        weight.data += (32 / 8) * high @ low
    made.save(model, tmp_path / "merged")
    folder = tmp_path / "lora"
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = [stem.rpartition(".")[2] for stem in STEMS[family]]
    rules = {"peft_type": "LORA", "r": 8, "lora_alpha": 32, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(rules))

    source = ModelSource("ours", "hf", str(tmp_path / "base"), adapter=str(folder))
    checkpoint = open_source(source, tmp_path, lambda _done, _total: None)
    assert isinstance(checkpoint, HfCheckpoint)
    expected = their_logits(tmp_path / "merged")
    assert families.max_difference(our_logits(checkpoint, tmp_path), expected) <= TOLERANCE
    if importlib.util.find_spec("peft") is None:
        assert "pip install peft" in cannot_ask(checkpoint), "no code of ours vouches for ours"
    else:
        with made.library_noise():
            asked = ask(checkpoint, "Once upon a time", made.TOKENS).logits
        assert numpy.abs(asked - numpy.asarray(expected)).max() <= TOLERANCE, "so does peft"
    assert families.max_difference(their_logits(tmp_path / "base"), expected) > 0.1, "it matters"
