"""Checkpoints made by transformers: read as transformers reads them, or refused at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from farm.core.artifact import ModelSource
from farm.core.errors import ExportError
from models.checkpoint import Checkpoint
from models.reference.logits import eager_logits
from models.sources import open_source
from models.sources.hf import HfCheckpoint
from models.tokenizer import Tokenizer
from tests.integration.models import checkpoints as made
from tests.integration.models import families
from tests.pace import slack

pytestmark = pytest.mark.export

TOLERANCE = 1e-4
#: Seconds until a refusal.
AT_ONCE_S = 5.0
TEXTS = ("Once upon a time, in a town of 12345 people", "naïve café\n\nnext <|user|> line")


def opened(folder: Path) -> Checkpoint:
    source = ModelSource("ours", kind="hf", path=str(folder))
    return open_source(source, folder.parent / "cache", lambda _done, _total: None)


def refused(folder: Path) -> str:
    started = time.monotonic()
    with pytest.raises(ExportError) as error:
        opened(folder)
    assert time.monotonic() - started < AT_ONCE_S * slack()
    assert str(folder) in error.value.message
    return error.value.message


def their_logits(folder: Path) -> torch.Tensor:
    with made.library_noise() as transformers:
        load = transformers.AutoModelForCausalLM.from_pretrained
        model = load(folder, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            logits: torch.Tensor = model(torch.tensor([made.TOKENS])).logits[0].float()
    return logits


def our_logits(checkpoint: Checkpoint, folder: Path) -> torch.Tensor:
    target = folder.parent / "logits.f32"
    return families.read_logits(target, eager_logits(checkpoint, None, made.TOKENS, target))


def check_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    with made.library_noise() as transformers:
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        stops = transformers.GenerationConfig.from_pretrained(folder).eos_token_id
        chat = theirs.apply_chat_template(
            [{"role": "user", "content": TEXTS[0]}], add_generation_prompt=True
        )["input_ids"]
    ours = Tokenizer(checkpoint.tokenizer)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"]
    assert ours.chat(TEXTS[0]) == chat
    assert list(ours.data.stop_ids) == (stops if isinstance(stops, list) else [stops])


@pytest.mark.parametrize("way", made.WAYS)
@pytest.mark.parametrize("shape", made.SHAPES)
def test_thirty_checkpoints_are_right(shape: str, way: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    family, extra = made.SHAPES[shape]
    made.WAYS[way](made.make(family, **extra), folder)
    checkpoint = opened(folder)
    expected = their_logits(folder)
    assert float(expected.std()) > 0.3, "logits without spread would hide errors"
    assert families.max_difference(our_logits(checkpoint, folder), expected) <= TOLERANCE
    check_tokenizer(checkpoint, folder)
    assert checkpoint.config.tied == (way == "tied-twice")
    # Qwen 2's tokenizer builds its own cut, and the folders made here have another.
    assert all("Qwen2Tokenizer builds" in note for note in checkpoint.notes)
    assert bool(checkpoint.notes) == (shape == "qwen2")


def _head_of_its_own(folder: Path) -> None:
    made.edit(folder, lambda data: data.update(tie_word_embeddings=True))


def _two_thetas(folder: Path) -> None:
    made.edit(folder, lambda data: data.update(rope_theta=777.0))


def _two_ropes(folder: Path) -> None:
    linear = {"rope_type": "linear", "factor": 4.0}
    made.edit(folder, lambda data: data.update(rope_scaling=linear))


def _index_beside(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}')


@pytest.mark.parametrize("change", [_head_of_its_own, _two_thetas, _two_ropes, _index_beside])
def test_where_places_disagree_it_is_transformers_choice(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    made.save(made.make("Llama", rope_parameters={"rope_theta": 5e5}), folder)
    change(folder)
    checkpoint = opened(folder)
    found = our_logits(checkpoint, folder)
    assert families.max_difference(found, their_logits(folder)) <= TOLERANCE
    assert len(checkpoint.notes) == 1, "and the report says so"


#: Families whose configs differ from Llama's in keys only, and what makes them differ.
OTHERS: dict[str, dict[str, Any]] = {
    "Mistral": {"sliding_window": 64},
    "SmolLM3": {"no_rope_layer_interval": 2, "pad_token_id": 0},
    "Granite": {"embedding_multiplier": 12.0},
}


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_are_refused_under_llamas_name(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    made.save(made.make(family, **OTHERS[family]), folder)
    names = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    made.edit(folder, lambda data: data.update(names))
    assert "config.json: " in refused(folder)


Q = "model.layers.1.self_attn.q_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"


def _key(**change: Any) -> Callable[[Path], None]:
    return lambda folder: made.edit(folder, lambda data: data.update(change))


def _rope(**change: Any) -> Callable[[Path], None]:
    return lambda folder: made.edit(folder, lambda data: data["rope_parameters"].update(change))


def _tensor(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    return lambda folder: made.edit_tensors(folder, lambda found: change(found) and None)


def _fp8(found: dict[str, torch.Tensor]) -> None:
    scale = found[Q].abs().max() / 448.0
    found[Q] = (found[Q] / scale).to(torch.float8_e4m3fn)


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"r": 8}')


#: A change of the maths that transformers, or the program that wrote the file, would follow.
MUTATIONS: dict[str, Callable[[Path], None]] = {
    "activation": _key(hidden_act="gelu"),
    "attention bias": _key(attention_bias=True),
    "mlp bias": _key(mlp_bias=True),
    "embedding multiplier": _key(embedding_multiplier=12.0),
    "logits scaling": _key(logits_scaling=8.0),
    "soft cap": _key(final_logit_softcapping=30.0),
    "attention scale": _key(attention_multiplier=0.01),
    "sliding window": _key(sliding_window=32, use_sliding_window=True),
    "layers without rope": _key(no_rope_layers=[1, 0]),
    "experts": _key(num_local_experts=4, num_experts_per_tok=2),
    "not causal": _key(is_causal=False),
    "quantised": _key(quantization_config={"quant_method": "fp8"}),
    "longrope": _rope(rope_type="longrope", short_factor=[1.0] * 8, long_factor=[2.0] * 8),
    "partial rotation": _rope(partial_rotary_factor=0.5),
    "rope per layer": _rope(sliding_attention={"rope_theta": 10000.0}),
    "scales": _tensor(lambda found: found.update({f"{Q}_scale_inv": torch.ones(1, 1)})),
    "8-bit floats": _tensor(_fp8),
    "8-bit integers": _tensor(lambda found: found.update({Q: found[Q].to(torch.int8)})),
    "renamed tensor": _tensor(lambda found: found.update({DOWN + "_v": found.pop(DOWN)})),
    "norm of heads": _tensor(
        lambda found: found.update({Q.replace("proj", "norm"): torch.full((16,), 2.0)})
    ),
    "bias": _tensor(lambda found: found.update({Q.replace("weight", "bias"): torch.ones(64)})),
    "adapter": _adapter,
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_of_a_good_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    made.save(made.make("Llama"), folder)
    opened(folder)
    MUTATIONS[name](folder)
    refused(folder)


def test_there_are_twenty_mutations() -> None:
    assert len(MUTATIONS) >= 20


def meta_folder(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Meta's format of a good checkpoint, its tensors changed."""
    made.save(made.make("Qwen3", head_dim=32), tmp_path / "hf")
    checkpoint = opened(tmp_path / "hf")
    assert isinstance(checkpoint, HfCheckpoint)
    folder = tmp_path / "meta"
    folder.mkdir()
    families.save_meta(checkpoint, folder)
    path = folder / "consolidated.00.pth"
    tensors = torch.load(path, weights_only=True)
    change(tensors)
    torch.save(tensors, path)
    return folder


def open_meta(folder: Path) -> Checkpoint:
    source = ModelSource("ours", kind="meta", path=str(folder))
    return open_source(source, folder, lambda _done, _total: None)


def test_pth_with_the_names_of_executorchs_converters(tmp_path: Path) -> None:
    def rename(found: dict[str, torch.Tensor]) -> None:
        for name in [name for name in found if "_norm.weight" in name and "attention." in name]:
            found[name.replace("_norm.", "_norm_fn.")] = found.pop(name)
        assert any("k_norm_fn" in name for name in found)

    folder = meta_folder(tmp_path, rename)
    found = our_logits(open_meta(folder), folder)
    assert families.max_difference(found, their_logits(tmp_path / "hf")) <= TOLERANCE


WQ = "layers.0.attention.wq.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda found: found.update({WQ: found[WQ].to(torch.int8), WQ + "_s": torch.ones(1)}),
            "wq.weight is stored as CharStorage",
        ),
        (
            lambda found: found.update({WQ: found[WQ].to(torch.float8_e4m3fn)}),
            "wq.weight is stored as float8_e4m3fn",
        ),
        (
            lambda found: found.update({WQ.replace("weight", "scales"): torch.ones(1)}),
            "wq.scales would not be used: it belongs to weights that were quantised",
        ),
        (
            lambda found: found.update({"layers.0.attention.wo.bias": torch.ones(64)}),
            "wo.bias would not be used: it is a bias",
        ),
        (
            lambda found: found.update({"layers.9.ffn_norm.weight": torch.ones(64)}),
            "layers.9.ffn_norm.weight would not be used",
        ),
    ],
)
def test_pth_that_would_be_read_wrongly_is_refused(
    change: Callable[[dict[str, torch.Tensor]], None], words: str, tmp_path: Path
) -> None:
    folder = meta_folder(tmp_path, change)
    with pytest.raises(ExportError, match=re.escape(words)) as refused:
        open_meta(folder)
    assert "consolidated.00.pth" in refused.value.message
