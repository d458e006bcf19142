"""Small checkpoints that transformers itself makes and saves, and the same in other formats."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch

from models.checkpoint import layer_tensors, outer_tensors
from models.sources.gguf import gguf_name
from models.sources.hf import HfCheckpoint
from models.tokenizer import byte_tokenizer

VOCAB = 512
#: Long enough that slowed rotations (waves above 8192 tokens) turn visibly.
TOKENS = tuple((7 * index * index + 3 * index + 5) % VOCAB for index in range(320))

_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": VOCAB,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Meta's format has no key for it: its code knows this one number.
    "original_max_position_embeddings": 8192,
}

#: name -> (transformers' config class, model class, arguments)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "llama3-tied": (
        "Llama",
        {"rope_parameters": _LLAMA3_ROPE, "tie_word_embeddings": True, "head_dim": 16},
    ),
    "llama3-untied": (
        "Llama",
        {"rope_parameters": _LLAMA3_ROPE, "tie_word_embeddings": False, "head_dim": 32},
    ),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": False, "head_dim": 32}),
}


def save_hf(name: str, folder: Path) -> torch.Tensor:
    """Save a random model of a family; returns its logits of TOKENS, float32 [S, vocab]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers and its dependencies, not ours
        import transformers

        family, extra = FAMILIES[name]
        config = getattr(transformers, f"{family}Config")(**_SHAPE | extra)
        config._attn_implementation = "eager"
        torch.manual_seed(len(name))
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval().float()
        with torch.no_grad():
            for key, value in model.named_parameters():
                # Norms and biases at their initial ones and zeros would hide a mix-up.
                if value.dim() == 1:
                    value.add_(0.3 * torch.randn(value.shape))
                else:
                    value.mul_(10.0 if "embed" in key else 3.0)
            logits = model(torch.tensor([TOKENS])).logits[0].float()
        model.save_pretrained(folder, max_shard_size="200KB" if name == "qwen3" else "5GB")
    (folder / "tokenizer.json").write_text(byte_tokenizer(VOCAB).json)
    return logits


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder rows of q or k from halves to neighbours, as converters to GGUF and Meta do."""
    rows = weight.view(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.transpose(1, 2).reshape(weight.shape)


def tensors_of(checkpoint: HfCheckpoint, *, interleaved: bool) -> dict[str, torch.Tensor]:
    """All tensors by canonical name."""
    config = checkpoint.config
    names = list(outer_tensors(config))
    for layer in range(config.layers):
        names += layer_tensors(config, layer)
    found = {name: checkpoint.tensor(name) for name in names}
    if interleaved:
        for name, value in found.items():
            if ".wq." in name:
                found[name] = interleave(value, config.heads)
            if ".wk." in name:
                found[name] = interleave(value, config.kv_heads)
    return found


def save_meta(checkpoint: HfCheckpoint, folder: Path, shards: int = 1) -> None:
    """Write a checkpoint in Meta's format.

    Meta's own models have no biases and no norms of heads, so its format has no keys for Qwen:
    those are the ones that ExecuTorch adds to params.json.
    """
    config = checkpoint.config
    llama = config.architecture == "llama"
    tensors = tensors_of(checkpoint, interleaved=llama)
    for shard in range(shards):
        part = {}
        for name, value in tensors.items():
            axis = 1 if ".wo." in name or ".w2." in name or name.startswith("tok_") else 0
            whole = value.dim() == 1 or shards == 1
            part[name] = value if whole else value.chunk(shards, dim=axis)[shard].clone()
        torch.save(part, folder / f"consolidated.{shard:02d}.pth")
    params: dict[str, Any] = {
        "dim": config.dim,
        "n_layers": config.layers,
        "n_heads": config.heads,
        "n_kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "vocab_size": -1,
    }
    if not llama:
        params |= {"use_hf_rope": True, "use_qk_norm": config.qk_norm}
        params |= {"qk_norm_before_rope": config.qk_norm}
    if config.rope_scaling is not None:
        params |= {"use_scaled_rope": True, "rope_scale_factor": config.rope_scaling.factor}
    (folder / "params.json").write_text(json.dumps(params))
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer.json)


def save_gguf(checkpoint: HfCheckpoint, path: Path, kind: str = "F32") -> None:
    """Write a checkpoint as GGUF; matrices in the given tensor type."""
    config = checkpoint.config
    writer = gguf.GGUFWriter(path, config.architecture)
    writer.add_block_count(config.layers)
    writer.add_context_length(config.max_context)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    _write_tokenizer(writer)
    from models.eager.rope import frequencies

    if config.rope_scaling is not None:
        plain = 1.0 / config.rope_theta ** (torch.arange(0, config.head_dim, 2) / config.head_dim)
        writer.add_tensor("rope_freqs.weight", (plain / frequencies(config)).float().numpy())
    interleaved = config.architecture == "llama"
    for name, value in tensors_of(checkpoint, interleaved=interleaved).items():
        data = value.float().numpy()
        if kind == "F32" or value.dim() == 1:
            writer.add_tensor(gguf_name(name), data)
        else:
            number = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(data, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_tokenizer(writer: gguf.GGUFWriter) -> None:
    content = json.loads(byte_tokenizer(VOCAB).json)
    vocab = sorted(content["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["content"] for token in content["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([3 if token in special else 1 for token, _ in vocab])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_bos_token_id(content["added_tokens"][0]["id"])
    writer.add_eos_token_id(content["added_tokens"][1]["id"])
    writer.add_add_bos_token(True)


def max_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Greatest absolute difference."""
    return float((first - second).abs().max())


def read_logits(path: Path, shape: tuple[int, int]) -> torch.Tensor:
    """Logits file as a tensor."""
    return torch.from_numpy(numpy.fromfile(path, "<f4").reshape(shape))
