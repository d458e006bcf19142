"""config.json of the families beside Llama and Qwen, key by key, as their repositories hold them.

Keys that `published_configs` has already (names of tokens, versions, dtypes) are left out.
"""

from __future__ import annotations

from typing import Any


def _shape(dim: int, layers: int, heads: int, kv: int, hidden: int, vocab: int) -> dict[str, Any]:
    return {
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": hidden,
        "vocab_size": vocab,
        "initializer_range": 0.02,
        "attention_dropout": 0.0,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }


_GELU = "gelu_pytorch_tanh"
_PHI_CODE = {
    "AutoConfig": "configuration_phi3.Phi3Config",
    "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
}
_PHI = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 4096,
    "attention_bias": False,
}
_GEMMA_3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "eos_token_id": [1, 106],
    "head_dim": 256,
    "hidden_activation": _GELU,
    "max_position_embeddings": 32768,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
}

#: Name in the registry -> config.json.
PUBLISHED: dict[str, dict[str, Any]] = {
    "mistral-7b-instruct": _shape(4096, 32, 32, 8, 14336, 32768)
    | {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "ministral-8b-instruct": _shape(4096, 36, 32, 8, 12288, 131072)
    | {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "head_dim": 128,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-05,
        "rope_theta": 100000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
    },
    "phi-3-mini-4k": _shape(3072, 32, 32, 32, 8192, 32064)
    | _PHI
    | {
        "auto_map": _PHI_CODE,
        "max_position_embeddings": 4096,
        "rope_scaling": None,
        "sliding_window": 2047,
        "tie_word_embeddings": False,
    },
    "phi-4-mini": _shape(3072, 32, 24, 8, 8192, 200064)
    | _PHI
    | {
        "auto_map": _PHI_CODE | {"AutoTokenizer": "Xenova/gpt-4o"},
        "full_attn_mod": 1,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": 131072,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {
            "long_factor": [1.0 + pair for pair in range(48)],
            "short_factor": [1.0] * 48,
            "type": "longrope",
        },
        "sliding_window": 262144,
        "tie_word_embeddings": True,
    },
    "gemma-2-2b-it": _shape(2304, 26, 8, 4, 9216, 256000)
    | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "attention_bias": False,
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_act": _GELU,
        "hidden_activation": _GELU,
        "max_position_embeddings": 8192,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
    },
    "gemma-3-270m-it": _shape(640, 18, 4, 1, 2048, 262144)
    | _GEMMA_3
    | {
        "_sliding_window_pattern": 6,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
        "use_bidirectional_attention": False,
    },
    "gemma-3-1b-it": _shape(1152, 26, 4, 1, 6912, 262144)
    | _GEMMA_3
    | {"cache_implementation": "hybrid", "sliding_window_pattern": 6},
    "smollm3-3b": _shape(2048, 36, 16, 4, 11008, 128256)
    | {
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "attention_bias": False,
        "hidden_act": "silu",
        "layer_types": ["full_attention"] * 36,
        "max_position_embeddings": 65536,
        "max_window_layers": 28,
        "mlp_bias": False,
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1, 1, 0] * 9,
        "pretraining_tp": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 5000000.0,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "granite-3.3-2b": _shape(2048, 40, 32, 8, 8192, 49159)
    | {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "attention_bias": False,
        "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0,
        "hidden_act": "silu",
        "logits_scaling": 8.0,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "residual_multiplier": 0.22,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000000.0,
        "tie_word_embeddings": True,
    },
    "olmo2-1b": _shape(2048, 16, 16, 16, 8192, 100352)
    | {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        "attention_bias": False,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
    },
}
