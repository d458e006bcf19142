"""Architectures of the model hub: one description each, of keys, defaults and tensor names.

A new family is an entry of `FAMILIES`; what its decoder does is a value of `ModelConfig`. Read from
transformers' config and model classes, 4.x and 5.x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: Which layers have a window: none; all; all that config.json lists, or all; all but each n-th,
#: those from `max_window_layers` on, or those without rotation, where config.json lists no others.
#: The last two only where `use_sliding_window` is true.
Windows = Literal["none", "all", "listed", "pattern", "later", "unrotated"]

_COMMON = {
    "input_layernorm": ("attention_norm",),
    "post_attention_layernorm": ("ffn_norm",),
    "self_attn.q_proj": ("attention.wq",),
    "self_attn.k_proj": ("attention.wk",),
    "self_attn.v_proj": ("attention.wv",),
    "self_attn.o_proj": ("attention.wo",),
    "self_attn.q_norm": ("attention.q_norm",),
    "self_attn.k_norm": ("attention.k_norm",),
    "mlp.gate_proj": ("feed_forward.w1",),
    "mlp.down_proj": ("feed_forward.w2",),
    "mlp.up_proj": ("feed_forward.w3",),
}
_POST_NORMS = {
    "post_attention_layernorm": ("attention_post_norm",),
    "pre_feedforward_layernorm": ("ffn_norm",),
    "post_feedforward_layernorm": ("ffn_post_norm",),
}
_FUSED = {
    "self_attn.qkv_proj": ("attention.wq", "attention.wk", "attention.wv"),
    "mlp.gate_up_proj": ("feed_forward.w1", "feed_forward.w3"),
}
_SPLIT = {
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """A number of config.json that becomes one of `ModelConfig`."""

    #: Field of ModelConfig.
    name: str
    #: What transformers takes for a missing key; None is the field's own default.
    default: float | None
    convert: Callable[[float], float] = float
    #: A null turns it off, where elsewhere a null is as if the key were not there.
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """How the hub's files of one architecture are read."""

    #: `model_type` of config.json.
    name: str
    #: Class names that `architectures` may hold: the plain decoder, with or without its output.
    architectures: tuple[str, ...]
    #: Context where the key is missing, tokens.
    context: int
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tied: bool = False
    #: Key/value heads where the key is missing; None is as many as heads, which null always means.
    kv_heads: int | None = None
    #: Width of a head where it isn't given; None follows from width and heads.
    head_dim: int | None = None
    #: Fields of ModelConfig that the family fixes.
    fixed: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, Scale] = field(default_factory=dict)
    #: Stem of a layer's tensor -> canonical ones; several are rows of one matrix, in this order.
    tensors: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _COMMON)
    #: Stored weights of norms are what is added to one.
    norms_from_zero: bool = False
    #: The embedding is multiplied by the root of its width.
    root_embedding: bool = False
    windows: Windows = "none"
    #: Window where the key is missing; null always means none.
    window: int | None = None
    #: Every so many layers one sees the whole text (`pattern`).
    pattern: int = 0
    #: Kinds of RoPE that it may have.
    ropes: tuple[str, ...] = ("default", "linear", "dynamic", "llama3", "yarn")
    #: Windowed layers have a base of their own.
    local_rope: bool = False
    partial_rope: bool = False
    #: Every so many layers one isn't rotated, where config.json doesn't list them.
    unrotated_every: int = 0
    #: Keys that only this family has.
    keys: frozenset[str] = frozenset()
    #: Values that its keys may have, in place of those of `hf_keys.NEUTRAL`.
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


def _classes(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{kind}" for name in names for kind in ("ForCausalLM", "Model"))


_GELU = ("gelu_pytorch_tanh",)
_GEMMA: dict[str, Any] = {
    "tied": True,
    "kv_heads": 4,
    "head_dim": 256,
    "tensors": {**_COMMON, **_POST_NORMS},
    "norms_from_zero": True,
    "root_embedding": True,
    "windows": "pattern",
    "window": 4096,
    "keys": frozenset({"query_pre_attn_scalar"}),
    "neutral": {"hidden_act": _GELU, "hidden_activation": _GELU},
}
_PRE_ATTENTION = Scale("attention_scale", 256.0, lambda value: value**-0.5)

_ENTRIES = (
    Family(
        "llama",
        (*_classes("Llama"), "LLaMAForCausalLM"),
        context=2048,
        neutral={"attention_bias": (False,)},
    ),
    Family(
        "qwen2",
        _classes("Qwen2"),
        context=32768,
        kv_heads=32,
        windows="later",
        window=4096,
        fixed={"qkv_bias": True},
        # Its projections have biases whatever the key says.
        neutral={"attention_bias": (True, False)},
    ),
    Family(
        "qwen3",
        _classes("Qwen3"),
        context=32768,
        kv_heads=32,
        head_dim=128,
        windows="later",
        window=4096,
        fixed={"qk_norm": True},
    ),
    Family("mistral", _classes("Mistral"), context=131072, kv_heads=8, windows="all", window=4096),
    Family(
        "ministral",
        _classes("Ministral"),
        context=131072,
        kv_heads=8,
        windows="listed",
        window=4096,
    ),
    Family(
        "phi3",
        _classes("Phi3"),
        context=4096,
        norm_eps=1e-5,
        tensors={key: names for key, names in _COMMON.items() if not _SPLIT & {*names}} | _FUSED,
        windows="all",
        ropes=("default", "longrope"),
        partial_rope=True,
        keys=frozenset({"original_max_position_embeddings", "partial_rotary_factor"}),
        neutral={
            # The hub's own code for versions of transformers that had none.
            "auto_map": tuple(
                {
                    "AutoConfig": "configuration_phi3.Phi3Config",
                    "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
                    **more,
                }
                for more in ({}, {"AutoTokenizer": "Xenova/gpt-4o"})
            ),
            "interpolate_factor": (1,),
            "full_attn_mod": (1,),
        },
    ),
    Family(
        "gemma2",
        _classes("Gemma2"),
        context=8192,
        pattern=2,
        fixed={"activation": "gelu_tanh", "post_norm": True},
        scales={
            "query_pre_attn_scalar": _PRE_ATTENTION,
            "final_logit_softcapping": Scale("logit_cap", 30.0, nullable=True),
            "attn_logit_softcapping": Scale("score_cap", 50.0, nullable=True),
        },
        **_GEMMA,
    ),
    Family(
        "gemma3_text",
        (*_classes("Gemma3"), "Gemma3TextModel"),
        context=131072,
        rope_theta=1e6,
        pattern=6,
        local_rope=True,
        fixed={"activation": "gelu_tanh", "post_norm": True, "qk_norm": True},
        # Its graph has no cap of scores, and no key turns one on.
        scales={
            "query_pre_attn_scalar": _PRE_ATTENTION,
            "final_logit_softcapping": Scale("logit_cap", None, nullable=True),
        },
        **_GEMMA
        | {
            "keys": frozenset(
                {"rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"}
            )
        },
    ),
    Family(
        "smollm3",
        _classes("SmolLM3"),
        context=32768,
        rope_theta=2e6,
        tied=True,
        kv_heads=4,
        windows="unrotated",
        unrotated_every=4,
        keys=frozenset({"no_rope_layers", "no_rope_layer_interval"}),
    ),
    Family(
        "granite",
        _classes("Granite"),
        context=2048,
        scales={
            "embedding_multiplier": Scale("embedding_scale", 1.0),
            "residual_multiplier": Scale("residual_scale", 1.0),
            "attention_multiplier": Scale("attention_scale", 1.0),
            "logits_scaling": Scale("logit_scale", 1.0, lambda value: 1.0 / value),
        },
    ),
    Family(
        "olmo2",
        _classes("Olmo2"),
        context=2048,
        norm_eps=1e-5,
        tensors={**_COMMON, **_POST_NORMS},
        fixed={"pre_norm": False, "post_norm": True, "qk_norm": True, "qk_norm_whole": True},
    ),
)

FAMILIES: dict[str, Family] = {entry.name: entry for entry in _ENTRIES}
