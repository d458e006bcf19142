"""Shape of a Llama-family decoder: plain numbers, no tensors, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from farm.core.errors import ExportError

RopePairing = Literal["interleaved", "half"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Frequency scaling of Llama 3.1 and later."""

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    #: Context length the model was first trained with, tokens.
    original_context: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that decides the graph of a decoder; weights fill it in."""

    architecture: Literal["llama", "qwen2", "qwen3"]
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    #: Width of the feed-forward block.
    hidden: int
    vocab: int
    norm_eps: float
    rope_theta: float
    #: Which elements of a head turn together: neighbours (Meta, GGUF llama) or halves (HF).
    rope_pairing: RopePairing
    #: Longest context the weights are meant for, tokens.
    max_context: int
    rope_scaling: RopeScaling | None = None
    #: Divisors of the rotation frequencies as a GGUF stores them, head_dim / 2 numbers; empty
    #: where there are none. Not to be confused with rope_scaling, the rule that makes them.
    rope_factors: tuple[float, ...] = ()
    #: Output weights are the embedding table.
    tied: bool = False
    #: The projections of query, key and value have biases (Qwen 2).
    qkv_bias: bool = False
    #: Query and key heads are normalised before RoPE (Qwen 3).
    qk_norm: bool = False

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones counted once."""
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = self.dim * (2 * query + 2 * kv) + 3 * self.dim * self.hidden + 2 * self.dim
        layer += (query + 2 * kv) if self.qkv_bias else 0
        layer += 2 * self.head_dim if self.qk_norm else 0
        tables = self.vocab * self.dim * (1 if self.tied else 2)
        return self.layers * layer + tables + self.dim


def check_config(config: ModelConfig, where: str) -> ModelConfig:
    """Return the config when a decoder can be built from it.

    Raises:
        ExportError: A number is missing or they contradict each other; names `where`.
    """
    for name in ("dim", "layers", "heads", "kv_heads", "head_dim", "hidden", "vocab"):
        if getattr(config, name) <= 0:
            raise ExportError(f"{where}: {name} is {getattr(config, name)}, it has to be positive")
    if config.heads % config.kv_heads:
        raise ExportError(
            f"{where}: {config.heads} heads can't share {config.kv_heads} key/value heads evenly"
        )
    if config.head_dim % 2:
        raise ExportError(f"{where}: head_dim is {config.head_dim}, RoPE needs an even number")
    return config
