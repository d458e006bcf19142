"""GGUF files: metadata, tokenizer and dequantised tensors, through the `gguf` package."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf

from farm.core.errors import ExportError
from models.checkpoint import SourceFile, TokenizerData
from models.config import ModelConfig, check_config
from models.sources.files import source_file
from models.sources.gguf_tokenizer import read_tokenizer

if TYPE_CHECKING:
    import torch

#: Tensor types that are read; others are refused by name.
SUPPORTED_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q5_K")

_LAYER = {
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
_OUTER = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}


def gguf_name(name: str) -> str:
    """Name in a GGUF of a canonical tensor name."""
    stem, _, kind = name.rpartition(".")
    if stem.startswith("layers."):
        _, layer, rest = stem.split(".", 2)
        return f"blk.{layer}.{_LAYER[rest]}.{kind}"
    return f"{_OUTER[stem]}.{kind}"


class GgufCheckpoint:
    """A memory-mapped GGUF."""

    def __init__(self, path: Path, cache: Path) -> None:
        self.path = path
        self._cache = cache
        try:
            self._reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, OSError) as error:
            raise ExportError(
                f"{path}: not a readable GGUF, or cut short ({error}); fetch it again"
            ) from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._check_size()
        self.config = self._config()
        self._check_types()
        self.tokenizer: TokenizerData = read_tokenizer(self.field, path)

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """See Checkpoint."""
        return (source_file(self.path, self._cache),)

    def field(self, key: str, default: Any = None) -> Any:
        """Value of a metadata key."""
        found = self._reader.fields.get(key)
        return default if found is None else found.contents()

    def tensor(self, name: str) -> torch.Tensor:
        """Read and dequantise one tensor; F16 and BF16 keep their dtype.

        Raises:
            ExportError: The file has none of that name.
        """
        import torch

        found = self._tensors.get(gguf_name(name))
        if found is None:
            raise ExportError(f"{self.path}: no tensor {gguf_name(name)}; the file is incomplete")
        shape = tuple(int(size) for size in reversed(found.shape))
        if found.tensor_type.name == "BF16":
            return torch.from_numpy(found.data.copy()).view(torch.bfloat16).view(shape)
        if found.tensor_type.name in ("F16", "F32"):
            return torch.from_numpy(found.data.copy()).view(shape)
        return torch.from_numpy(gguf.quants.dequantize(found.data, found.tensor_type)).view(shape)

    def _config(self) -> ModelConfig:
        architecture = self.field("general.architecture")
        if architecture not in ("llama", "qwen2", "qwen3"):
            raise ExportError(
                f"{self.path}: architecture {architecture!r} isn't supported; llama, qwen2 and"
                " qwen3 are"
            )

        def number(key: str, default: Any = None) -> Any:
            value = self.field(f"{architecture}.{key}", default)
            if value is None:
                raise ExportError(f"{self.path}: metadata key {architecture}.{key} is missing")
            return value

        if self.field(f"{architecture}.expert_count", 0):
            raise ExportError(f"{self.path}: mixtures of experts aren't supported")
        heads, dim = int(number("attention.head_count")), int(number("embedding_length"))
        config = ModelConfig(
            architecture=architecture,
            dim=dim,
            layers=int(number("block_count")),
            heads=heads,
            kv_heads=int(number("attention.head_count_kv", heads)),
            head_dim=int(number("attention.key_length", dim // heads)),
            hidden=int(number("feed_forward_length")),
            vocab=int(self._tensors["token_embd.weight"].shape[1]),
            norm_eps=_shortest(float(number("attention.layer_norm_rms_epsilon"))),
            rope_theta=float(number("rope.freq_base", 10000.0)),
            # The converters of architecture llama reorder rows of q and k; the others don't.
            rope_pairing="interleaved" if architecture == "llama" else "half",
            max_context=int(number("context_length")),
            rope_factors=self._rope_factors(architecture),
            tied="output.weight" not in self._tensors,
            qkv_bias="blk.0.attn_q.bias" in self._tensors,
            qk_norm="blk.0.attn_q_norm.weight" in self._tensors,
        )
        return check_config(config, str(self.path))

    def _rope_factors(self, architecture: str) -> tuple[float, ...]:
        scaling = self.field(f"{architecture}.rope.scaling.type", "none")
        if scaling not in ("none", ""):
            raise ExportError(f"{self.path}: RoPE scaling {scaling!r} isn't supported")
        found = self._tensors.get("rope_freqs.weight")
        return () if found is None else tuple(float(value) for value in found.data.flatten())

    def _check_size(self) -> None:
        if "token_embd.weight" not in self._tensors:
            raise ExportError(f"{self.path}: no tensor token_embd.weight; this is no whole model")
        end = max(int(t.data_offset) + int(t.n_bytes) for t in self._reader.tensors)
        size = self.path.stat().st_size
        if end > size:
            raise ExportError(
                f"{self.path}: cut short, {size} of at least {end} bytes; fetch it again"
            )

    def _check_types(self) -> None:
        for tensor in self._reader.tensors:
            if tensor.tensor_type.name not in SUPPORTED_TYPES:
                raise ExportError(
                    f"{self.path}: tensor {tensor.name} is {tensor.tensor_type.name}; supported"
                    f" are {', '.join(SUPPORTED_TYPES)}"
                )


def _shortest(value: float) -> float:
    """The decimal number that was meant: GGUF stores 1e-5 as the float32 9.99999974e-06."""
    exponent = math.floor(math.log10(value)) if value > 0 else 0
    rounded = round(value, 6 - exponent)
    return rounded if math.isclose(rounded, value, rel_tol=1e-6) else value
