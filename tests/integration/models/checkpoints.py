"""Checkpoints as people have them, made by transformers: five shapes, saved in six ways."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from models.tokenizer import byte_tokenizer

VOCAB = 512
TOKENS = tuple((7 * index * index + 3 * index + 5) % VOCAB for index in range(96))
_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": VOCAB,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 325,
    "eos_token_id": 326,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
#: name -> (transformers' class, what differs from the common shape)
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"num_key_value_heads": 4}),
    "llama3": ("Llama", {"rope_parameters": _LLAMA3, "head_dim": 32}),
    "llama-linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    ),
    "qwen2": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3": ("Qwen3", {"head_dim": 32, "sliding_window": None}),
}


@contextmanager
def library_noise() -> Iterator[Any]:
    """Give transformers, with its own warnings left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
        yield transformers


def make(family: str, **shape: Any) -> Any:
    """A random model of transformers whose logits have spread."""
    with library_noise() as transformers:
        kind = {"Gemma3": "Gemma3Text"}.get(family, family)
        config = getattr(transformers, f"{kind}Config")(**_SHAPE | shape)
        torch.manual_seed(3)
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval().float()
        with torch.no_grad():
            for key, value in model.named_parameters():
                if value.dim() == 1:
                    value.add_(0.3 * torch.randn(value.shape))
                else:
                    value.mul_(10.0 if "embed" in key else 3.0)
    return model


def save(model: Any, folder: Path, shard: str = "5GB") -> None:
    """Save a model and a tokenizer beside it."""
    with library_noise():
        model.save_pretrained(folder, max_shard_size=shard)
    data = byte_tokenizer(VOCAB)
    (folder / "tokenizer.json").write_text(data.json)
    rules: dict[str, str | None] = {"bos_token": data.bos_token, "eos_token": data.eos_token}
    rules |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": data.chat_template}
    (folder / "tokenizer_config.json").write_text(json.dumps(rules))


def edit(folder: Path, change: Callable[[dict[str, Any]], None], name: str = "config.json") -> None:
    """Change a JSON file."""
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights of a folder with one file."""
    path = folder / "model.safetensors"
    found = load_file(path)
    change(found)
    save_file(found, path, {"format": "pt"})


def as_version_4(data: dict[str, Any]) -> None:
    """Rewrite config.json as transformers 4 wrote it, nulls included."""
    rope = data.pop("rope_parameters")
    data["rope_theta"] = rope.pop("rope_theta")
    data["rope_scaling"] = None if rope == {"rope_type": "default"} else rope
    data["torch_dtype"] = data.pop("dtype", "float32")
    data["transformers_version"] = "4.45.2"
    data.pop("layer_types", None)


def _plain(model: Any, folder: Path) -> None:
    save(model, folder)


def _version_4(model: Any, folder: Path) -> None:
    save(model, folder)
    edit(folder, as_version_4)


def _bf16_shards(model: Any, folder: Path) -> None:
    save(model.bfloat16(), folder, "60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2


def _fp16_nulls(model: Any, folder: Path) -> None:
    save(model.half(), folder)

    def nulls(data: dict[str, Any]) -> None:
        as_version_4(data)
        if data["model_type"] == "llama" and data["head_dim"] == 16:
            data["head_dim"] = None
        if data["num_key_value_heads"] == data["num_attention_heads"]:
            data["num_key_value_heads"] = None
        data |= {"pad_token_id": None, "quantization_config": None, "sliding_window": None}

    edit(folder, nulls)


def _padded(model: Any, folder: Path) -> None:
    """More rows than tokens, and several ids that end a reply."""
    with library_noise():
        model.resize_token_embeddings(VOCAB + 128, mean_resizing=False)
        with torch.no_grad():
            for table in (model.get_input_embeddings(), model.get_output_embeddings()):
                table.weight[VOCAB:] = torch.randn(128, 64)
    model.generation_config.eos_token_id = [326, 330, 331]
    save(model, folder)


def _tied_twice(model: Any, folder: Path) -> None:
    """A tied model whose head is stored beside its embedding, and a table of rotations."""
    model.config.tie_word_embeddings = True
    model.tie_weights()
    save(model, folder)

    def store(found: dict[str, torch.Tensor]) -> None:
        found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()
        found["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    edit_tensors(folder, store)


WAYS: dict[str, Callable[[Any, Path], None]] = {
    "version-5": _plain,
    "version-4": _version_4,
    "bf16-shards": _bf16_shards,
    "fp16-nulls": _fp16_nulls,
    "padded": _padded,
    "tied-twice": _tied_twice,
}
