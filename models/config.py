"""Shape of a decoder: plain numbers and choices, no tensors, no torch.

One decoder reads it (`models.eager.decoder`). An architecture is a value of this, not a class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from farm.core.errors import ExportError

RopePairing = Literal["interleaved", "half"]
#: Rotations of a layer: the model's, those of its windowed layers (Gemma 3), or none (SmolLM3).
RopeKind = Literal["global", "local", "none"]
Activation = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Frequency scaling of Llama 3.1 and later."""

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    #: Context length the model was first trained with, tokens.
    original_context: int = 8192


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """Frequency scaling of YaRN: fast waves stay, slow ones are stretched, those between blend."""

    factor: float
    #: Turns within the original context above which a wave stays, and below which it is stretched.
    beta_fast: float
    beta_slow: float
    #: Context length the model was first trained with, tokens.
    original_context: int
    #: The bounds are whole pairs.
    truncate: bool


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that decides the graph of a decoder; weights fill it in."""

    #: Name of the family, as config.json and GGUF have it.
    architecture: str
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
    rope_scaling: RopeScaling | YarnScaling | None = None
    #: Divisors of the rotation frequencies as a GGUF stores them, head_dim / 2 numbers; empty
    #: where there are none. Not to be confused with rope_scaling, the rule that makes them.
    rope_factors: tuple[float, ...] = ()
    #: Output weights are the embedding table.
    tied: bool = False
    #: The projections of query, key and value have biases (Qwen 2).
    qkv_bias: bool = False
    #: Query and key heads are normalised before RoPE (Qwen 3).
    qk_norm: bool = False
    #: Those norms see all heads at once (OLMo 2).
    qk_norm_whole: bool = False
    #: Cosines and sines are multiplied by it (YaRN, LongRoPE).
    rope_scale: float = 1.0
    #: Elements at the start of a head that are rotated; 0 is the whole head.
    rotary_dim: int = 0
    #: Base of the rotations in windowed layers, which know no scaling; 0 is as everywhere.
    local_rope_theta: float = 0.0
    #: Layers without rotation.
    unrotated: tuple[int, ...] = ()
    #: Tokens that a windowed layer sees, itself included; 0 where no layer has a window.
    window: int = 0
    windowed: tuple[int, ...] = ()
    activation: Activation = "silu"
    #: Attention and feed-forward block normalise what they read, and what they add.
    pre_norm: bool = True
    post_norm: bool = False
    #: Factors of the embedding, of what each block adds, and of the logits.
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    #: Factor of attention scores; 0 is one over the root of head_dim.
    attention_scale: float = 0.0
    #: Soft caps `cap * tanh(x / cap)` of attention scores and logits; 0 is none.
    score_cap: float = 0.0
    logit_cap: float = 0.0

    def rope_kind(self, layer: int) -> RopeKind:
        """Which rotations a layer has."""
        if layer in self.unrotated:
            return "none"
        return "local" if self.local_rope_theta and layer in self.windowed else "global"

    def window_of(self, layer: int) -> int:
        """Tokens that a layer sees; 0 is all."""
        return self.window if layer in self.windowed else 0

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones counted once."""
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = self.dim * (2 * query + 2 * kv) + 3 * self.dim * self.hidden
        layer += 2 * self.dim * (self.pre_norm + self.post_norm)
        layer += (query + 2 * kv) if self.qkv_bias else 0
        if self.qk_norm:
            layer += query + kv if self.qk_norm_whole else 2 * self.head_dim
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
    if config.rotary_dim % 2 or not 0 <= config.rotary_dim <= config.head_dim:
        raise ExportError(
            f"{where}: {config.rotary_dim} elements of a head would be rotated; an even number up"
            f" to head_dim ({config.head_dim}) is needed"
        )
    scales = ("embedding_scale", "residual_scale", "logit_scale", "rope_scale")
    for name in (*scales, "rope_theta", "max_context"):
        if not 0 < getattr(config, name) < math.inf:
            raise ExportError(f"{where}: {name} is {getattr(config, name)}, it has to be positive")
    for name in ("attention_scale", "score_cap", "logit_cap", "norm_eps", "local_rope_theta"):
        if not 0 <= getattr(config, name) < math.inf:
            raise ExportError(f"{where}: {name} is {getattr(config, name)}, below zero or infinite")
    return config
