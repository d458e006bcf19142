"""GGUF files as models: shape and dequantised tensors, through the `gguf` package."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import gguf

from farm.core.errors import ExportError
from models.config import ModelConfig, check_config
from models.sources import gguf_keys
from models.sources.files import check_finite
from models.sources.gguf_file import GgufFile
from models.sources.shapes import check_tensors, refuse_unknown, wanted_tensors

if TYPE_CHECKING:
    import torch

#: Tensor types that are read: plain ones, and those that the gguf package dequantises as llama.cpp
#: does.
PLAIN_TYPES = ("F64", "F32", "F16", "BF16")

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


class GgufCheckpoint(GgufFile):
    """A GGUF of an architecture whose graph farm has."""

    def __init__(self, path: Path, cache: Path, tokenizer: Path | None = None) -> None:
        super().__init__(path, cache, tokenizer)
        self._check_architecture()
        self.config = self._config(self.architecture)
        self._check_tensors()

    def tensor(self, name: str) -> torch.Tensor:
        """Read and dequantise one tensor; F16 and BF16 keep their dtype.

        Raises:
            ExportError: The file has none of that name, or a number isn't finite.
        """
        import torch

        found = self._tensors.get(gguf_name(name))
        if found is None:
            raise ExportError(f"{self.path}: no tensor {gguf_name(name)}; the file is incomplete")
        shape = tuple(int(size) for size in reversed(found.shape))
        kind = found.tensor_type.name
        if kind == "BF16":
            made = torch.from_numpy(found.data.copy()).view(torch.bfloat16)
        elif kind in PLAIN_TYPES:
            made = torch.from_numpy(found.data.copy())
        else:
            made = torch.from_numpy(gguf.quants.dequantize(found.data, found.tensor_type))
        return check_finite(made.view(shape), found.name, self.path)

    def _check_architecture(self) -> None:
        if self.architecture not in ("llama", "qwen2", "qwen3"):
            raise ExportError(
                f"{self.path}: architecture {self.architecture!r} isn't supported; llama, qwen2"
                " and qwen3 are. With `recipe: gguf` llama.cpp runs the file as it is"
            )
        for key in self._reader.fields:
            first, _, rest = key.partition(".")
            if first == self.architecture:
                self._check_key(key, rest)

    def _check_key(self, key: str, name: str) -> None:
        if name in gguf_keys.USED or name in gguf_keys.HARMLESS:
            return
        value = self.field(key)
        if name not in gguf_keys.NEUTRAL:
            raise ExportError(
                f"{self.path}: metadata key {key} is {str(value)[:80]}: farm doesn't know it, so"
                " what it would change is unknown. Give the model as a hub folder (hf:)"
            )
        allowed, effect = gguf_keys.NEUTRAL[name]
        if value not in allowed:
            raise ExportError(
                f"{self.path}: metadata key {key} is {str(value)[:80]}: it changes {effect}, which"
                " farm's graph doesn't have"
            )

    def _config(self, architecture: str) -> ModelConfig:
        def number(key: str, default: float | None = None) -> float:
            return self.number(f"{architecture}.{key}", default)

        heads, dim = int(number("attention.head_count")), int(number("embedding_length"))
        width = int(number("attention.key_length", dim // max(heads, 1)))
        for key in ("attention.value_length", "rope.dimension_count"):
            if int(number(key, width)) != width:
                raise ExportError(
                    f"{self.path}: metadata key {architecture}.{key} is {int(number(key))}, a head"
                    f" has {width}: heads that aren't rotated as a whole aren't supported"
                )
        config = ModelConfig(
            architecture=architecture,
            dim=dim,
            layers=int(number("block_count")),
            heads=heads,
            kv_heads=int(number("attention.head_count_kv", heads)),
            head_dim=width,
            hidden=int(number("feed_forward_length")),
            vocab=self.vocab,
            norm_eps=_shortest(number("attention.layer_norm_rms_epsilon")),
            rope_theta=number("rope.freq_base", 10000.0),
            # The converters of architecture llama reorder rows of q and k; the others don't.
            rope_pairing="interleaved" if architecture == "llama" else "half",
            max_context=int(number("context_length")),
            tied="output.weight" not in self._tensors,
            qkv_bias="blk.0.attn_q.bias" in self._tensors,
            qk_norm=architecture == "qwen3",
        )
        config = check_config(config, str(self.path))
        return replace(config, rope_factors=self._rope_factors(architecture, width // 2))

    def _rope_factors(self, architecture: str, pairs: int) -> tuple[float, ...]:
        """Divisors of the frequencies: of linear scaling, and of a tensor (Llama 3)."""
        # llama.cpp takes a missing type for linear.
        scaling = self.field(f"{architecture}.rope.scaling.type", "linear")
        if scaling not in ("none", "", "linear"):
            raise ExportError(
                f"{self.path}: metadata key {architecture}.rope.scaling.type: RoPE scaling"
                f" {scaling!r} isn't supported; none and linear are"
            )
        old = self.number(f"{architecture}.rope.scale_linear", 0.0)
        factor = self.number(f"{architecture}.rope.scaling.factor", old)
        if scaling != "linear" or factor == 0.0:
            factor = 1.0
        found = self._tensors.get("rope_freqs.weight")
        if found is None:
            return () if factor == 1.0 else (factor,) * pairs
        divisors = tuple(float(value) * factor for value in found.data.flatten())
        if len(divisors) != pairs or not all(0 < value < math.inf for value in divisors):
            raise ExportError(
                f"{self.path}: tensor rope_freqs.weight: {pairs} positive numbers are expected"
            )
        return divisors

    def _check_tensors(self) -> None:
        wanted = {gguf_name(name): name for name in wanted_tensors(self.config)}
        extra = {"rope_freqs.weight"} if self.config.architecture == "llama" else set()
        refuse_unknown((n for n in self._tensors if n not in wanted and n not in extra), self.path)
        kinds = {*PLAIN_TYPES, *(kind.name for kind in gguf.quants._type_traits)}
        shapes = {}
        for tensor in self._reader.tensors:
            if tensor.tensor_type.name not in kinds:
                raise ExportError(
                    f"{self.path}: tensor {tensor.name} is {tensor.tensor_type.name}; supported"
                    f" are {', '.join(sorted(kinds))}"
                )
            if tensor.name in wanted:
                shapes[wanted[tensor.name]] = tuple(int(size) for size in reversed(tensor.shape))
        check_tensors(self.config, shapes, self.path)


def _shortest(value: float) -> float:
    """The decimal number that was meant: GGUF stores 1e-5 as the float32 9.99999974e-06."""
    exponent = math.floor(math.log10(value)) if value > 0 else 0
    rounded = round(value, 6 - exponent)
    return rounded if math.isclose(rounded, value, rel_tol=1e-6) else value
