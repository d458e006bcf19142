"""Small checkpoints of the families beside Llama and Qwen, made and saved by transformers."""

from __future__ import annotations

from typing import Any

#: Long enough that every window below hides most of the text.
WINDOW = 24

_YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
_YARN |= {"original_max_position_embeddings": 128}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
_LINEAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
_LOCAL = {"rope_type": "default", "rope_theta": 1e4}
_LONG = {"short_factor": [1.0, 1.1, 1.3, 1.7, 2.0, 3.0], "long_factor": [2.0] * 6}
_LONG_ROPE = {"rope_type": "longrope", "rope_theta": 1e4, **_LONG}
_PADDED = {"pad_token_id": 0}
_GEMMA: dict[str, Any] = {
    "head_dim": 32,
    "query_pre_attn_scalar": 20,
    "sliding_window": WINDOW,
    "num_hidden_layers": 4,
}

#: name -> (transformers' class, what differs from the common shape)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("Mistral", {"sliding_window": WINDOW, "head_dim": 32}),
    "mistral-whole": ("Mistral", {"sliding_window": None, "tie_word_embeddings": True}),
    "ministral": (
        "Ministral",
        {
            "sliding_window": WINDOW,
            "layer_types": ["full_attention", "sliding_attention"],
            "head_dim": 16,
        },
    ),
    "phi3": ("Phi3", _PADDED | {"sliding_window": WINDOW, "num_key_value_heads": 4}),
    "phi4-mini": (
        "Phi3",
        _PADDED
        | {
            "tie_word_embeddings": True,
            "rope_parameters": _LONG_ROPE | {"partial_rotary_factor": 0.75},
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 256,
        },
    ),
    "gemma2": ("Gemma2", _GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0}),
    "gemma2-uncapped": (
        "Gemma2",
        _GEMMA | {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "gemma3": (
        "Gemma3",
        _GEMMA
        | {
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "final_logit_softcapping": 5.0,
            "rope_parameters": {"full_attention": _LINEAR, "sliding_attention": _LOCAL},
        },
    ),
    "smollm3": (
        "SmolLM3",
        _PADDED
        | {"no_rope_layer_interval": 2, "num_hidden_layers": 4, "tie_word_embeddings": True},
    ),
    "smollm3-windows": (
        "SmolLM3",
        _PADDED | {"no_rope_layers": [1, 0], "use_sliding_window": True, "sliding_window": WINDOW},
    ),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.1,
            "logits_scaling": 0.7,
        },
    ),
    "olmo2": ("Olmo2", {}),
    "qwen2-yarn": ("Qwen2", {"rope_parameters": _YARN}),
    "qwen2-windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3-yarn": (
        "Qwen3",
        {
            "rope_parameters": _YARN | {"beta_fast": 16.0, "beta_slow": 2.0, "truncate": False},
            "head_dim": 32,
            "tie_word_embeddings": True,
        },
    ),
    "llama-yarn": ("Llama", {"rope_parameters": _YARN | {"mscale": 1.5, "mscale_all_dim": 0.5}}),
    "llama-dynamic": ("Llama", {"rope_parameters": _DYNAMIC}),
}


def as_version_4(data: dict[str, Any]) -> None:
    """Rewrite config.json as transformers 4 wrote it, nulls included."""
    rope = data.pop("rope_parameters")
    if "full_attention" in rope:
        data["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        data["sliding_window_pattern"] = 2
        data |= {"layer_types": None, "_sliding_window_pattern": None}
        rope = rope["full_attention"]
    data["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type") == "longrope":
        rope.pop("original_max_position_embeddings")
    rope.pop("partial_rotary_factor", None)
    data["rope_scaling"] = None if rope == {"rope_type": "default"} else rope
    data["torch_dtype"] = data.pop("dtype", "float32")
    data["transformers_version"] = "4.45.2"
    data |= {"pad_token_id": data.get("pad_token_id"), "quantization_config": None}
    if data["model_type"] in ("mistral", "phi3") and data.get("head_dim") == 16:
        data["head_dim"] = None
    if data["model_type"] == "smollm3" and not data["use_sliding_window"]:
        data |= {"layer_types": None, "no_rope_layers": None}
