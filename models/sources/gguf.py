"""GGUF files: metadata, tokenizer and dequantised tensors, through the `gguf` package."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf

from farm.core.errors import ExportError
from models.checkpoint import SourceFile, TokenizerData
from models.config import ModelConfig, check_config
from models.sources import gguf_keys
from models.sources.files import check_finite, source_file
from models.sources.gguf_tokenizer import read_tokenizer, token_rules
from models.sources.shapes import check_tensors, check_vocabulary, refuse_unknown, wanted_tensors
from models.sources.tokenizer_files import read_tokenizer_file, rule_files

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


class GgufCheckpoint:
    """A memory-mapped GGUF."""

    def __init__(self, path: Path, cache: Path, tokenizer: Path | None = None) -> None:
        self.path = path
        self._cache = cache
        self._reader = _opened(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.notes: tuple[str, ...] = ()
        architecture = self._check_keys()
        self._check_size()
        self.config = self._config(architecture)
        self._check_tensors()
        self._tokenizer_file = tokenizer
        self.tokenizer: TokenizerData = self._read_tokenizer(tokenizer)
        check_vocabulary(self.tokenizer, self.config, tokenizer or path)

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """See Checkpoint."""
        given = self._tokenizer_file
        paths = [self.path, *(() if given is None else (given, *rule_files(given)))]
        return tuple(source_file(path, self._cache) for path in paths)

    def field(self, key: str, default: Any = None) -> Any:
        """Value of a metadata key."""
        found = self._reader.fields.get(key)
        return default if found is None else found.contents()

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

    def _read_tokenizer(self, given: Path | None) -> TokenizerData:
        """The file that a config gives wins; what it leaves open is taken from the GGUF."""
        if given is None:
            return read_tokenizer(self.field, self.path)
        inside = token_rules(self.field, self.path)
        found = read_tokenizer_file(given, inside.stop_ids or None)
        return replace(found, chat_template=found.chat_template or inside.chat_template)

    def _check_keys(self) -> str:
        """Refuse metadata that isn't understood; returns the architecture."""
        kind = self.field("general.type", "model")
        if kind != "model":
            raise ExportError(f"{self.path}: general.type is {kind!r}, a whole model is expected")
        architecture = self.field("general.architecture")
        if architecture not in ("llama", "qwen2", "qwen3"):
            raise ExportError(
                f"{self.path}: architecture {architecture!r} isn't supported; llama, qwen2 and"
                " qwen3 are"
            )
        count = self.field("split.count", 1)
        if count not in (0, 1):
            raise ExportError(
                f"{self.path}: split.count: this is file {int(self.field('split.no', 0)) + 1} of"
                f" {count}; join them with `llama-gguf-split --merge` and give the whole"
            )
        for key in self._reader.fields:
            first, _, rest = key.partition(".")
            if first == architecture:
                self._check_key(key, rest)
            elif first == "tokenizer":
                self._check_tokenizer_key(key, rest)
            elif first == "adapter":
                raise ExportError(f"{self.path}: {key}: an adapter; merge it into its base")
        return str(architecture)

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

    def _check_tokenizer_key(self, key: str, name: str) -> None:
        if name in gguf_keys.TOKENIZER_USED or name in gguf_keys.TOKENIZER_HARMLESS:
            return
        if name.startswith("chat_template."):
            return
        if self.field(key) in gguf_keys.TOKENIZER_NEUTRAL.get(name, ()):
            return
        raise ExportError(
            f"{self.path}: metadata key {key}: farm doesn't know it, so which ids it would change"
            " is unknown. Give the model as a hub folder (hf:)"
        )

    def _number(self, key: str, default: float | None = None) -> float:
        """One number; an array with one for each layer counts when all are equal."""
        value = self.field(key, default)
        if value is None:
            raise ExportError(f"{self.path}: metadata key {key} is missing")
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise ExportError(
                    f"{self.path}: metadata key {key} is {str(value)[:80]}: layers of different"
                    " shapes aren't supported"
                )
            value = value[0]
        if isinstance(value, (bool, str)):
            raise ExportError(f"{self.path}: metadata key {key} is {value!r}, no number")
        return float(value)

    def _config(self, architecture: Any) -> ModelConfig:
        def number(key: str, default: float | None = None) -> float:
            return self._number(f"{architecture}.{key}", default)

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
            vocab=int(self._tensors["token_embd.weight"].shape[1]),
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
        old = self._number(f"{architecture}.rope.scale_linear", 0.0)
        factor = self._number(f"{architecture}.rope.scaling.factor", old)
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

    def _check_size(self) -> None:
        if "token_embd.weight" not in self._tensors:
            raise ExportError(f"{self.path}: no tensor token_embd.weight; this is no whole model")
        end = max(int(t.data_offset) + int(t.n_bytes) for t in self._reader.tensors)
        size = self.path.stat().st_size
        if end > size:
            raise ExportError(
                f"{self.path}: cut short, {size} of at least {end} bytes; fetch it again"
            )

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


def _opened(path: Path) -> Any:
    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError, UnicodeDecodeError) as error:
        old = re.search(r"(\d+)\)? is not a valid GGMLQuantizationType", str(error))
        if old is not None:
            number = int(old[1])
            raise ExportError(
                f"{path}: a tensor has type {gguf_keys.OLD_TYPES.get(number, number)}, which"
                " isn't supported; quantise the model again with a newer llama.cpp"
            ) from error
        raise ExportError(
            f"{path}: not a readable GGUF, or cut short ({error}); fetch it again"
        ) from error


def _shortest(value: float) -> float:
    """The decimal number that was meant: GGUF stores 1e-5 as the float32 9.99999974e-06."""
    exponent = math.floor(math.log10(value)) if value > 0 else 0
    rounded = round(value, 6 - exponent)
    return rounded if math.isclose(rounded, value, rel_tol=1e-6) else value
