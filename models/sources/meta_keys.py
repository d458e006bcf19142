"""Keys of params.json, by what they do to logits. A key in no table is refused by its name.

Meta's own files have a dozen keys; the others are fields of ModelArgs in ExecuTorch's examples,
whose converters write such files for models of other families too.
"""

from __future__ import annotations

from typing import Any

#: Read by `meta.read_params`.
USED = frozenset(
    {
        "dim",
        "n_layers",
        "n_heads",
        "n_kv_heads",
        "head_dim",
        "hidden_dim",
        "vocab_size",
        "norm_eps",
        "rope_theta",
        "rope_freq_base",
        "use_hf_rope",
        "use_scaled_rope",
        "rope_scale_factor",
        "high_freq_factor",
        "use_qk_norm",
        "qk_norm_before_rope",
        "attention_qkv_bias",
        "max_context",
    }
)
#: Shape of the feed-forward block as a rule (the tensors have the shape itself), how a runtime is
#: set up, and what only training reads.
HARMLESS = frozenset(
    {
        "ffn_dim_multiplier",
        "multiple_of",
        "max_batch_size",
        "max_seq_len",
        "max_context_len",
        "max_position_embeddings",
        "use_kv_cache",
        "use_sdpa_with_kv_cache_op",
        "generate_full_logits",
        "enable_dynamic_shape",
        "device",
        "bos_idx",
        "eos_idx",
        "bos_count",
        "eos_count",
        "dropout",
        # Counts of a mixture of experts, which `moe` asks for.
        "num_experts",
        "num_activated_experts",
        "moe_hidden_dim",
        "moe_shared_expert_hidden_dim",
        "moe_use_expert_bias",
        "moe_score_func",
        "moe_route_scale",
        # Shapes of linear attention, which layer_types asks for.
        "linear_conv_kernel_dim",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "linear_num_key_heads",
        "linear_num_value_heads",
        "kv_io_bit_width",
    }
)
#: Keys that change what is computed, unless they have one of these values: value and effect.
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "moe": ((False,), "a mixture of experts"),
    "act_fn": (("silu",), "the activation of the feed-forward block"),
    "norm_type": (("rmsnorm",), "the kind of norm"),
    "rms_norm_add_unit_offset": ((False,), "the kind of norm"),
    "post_attention_norm": ((False,), "a norm after attention"),
    "post_ffn_norm": ((False,), "a norm after the feed-forward block"),
    "use_ffn_norm": ((True,), "the norm before the feed-forward block"),
    "qk_norm_affine": ((True,), "the norms of query and key"),
    "output_bias": ((False,), "a bias of the output"),
    "attention_type": (("mha",), "the kind of attention"),
    "use_q_gate": ((False,), "a gate of the query"),
    "attention_multiplier": ((), "the scale of attention scores"),
    "logits_scaling": ((1, 1.0), "the scale of the logits"),
    "residual_multiplier": ((1, 1.0), "the scale of the residual stream"),
    "embedding_scale_factor": ((1, 1.0), "the scale of the embedding"),
    "no_rope_layer_interval": ((0,), "layers without RoPE"),
    "partial_rotary_factor": ((1, 1.0), "how much of a head is rotated"),
    "local_rope_theta": ((), "the RoPE of sliding windows"),
    "sliding_window": ((0,), "how far a token sees back"),
    "layer_types": ((), "layers of different kinds"),
    "num_kv_shared_layers": ((0,), "layers that share keys and values"),
    "final_logit_softcapping": ((), "a soft cap of the logits"),
    "attn_logit_softcapping": ((), "a soft cap of attention scores"),
    "apply_embedding": ((True,), "a model without its embedding"),
    "apply_output": ((True,), "a model without its output"),
    "input_prune_map": ((), "which tokens there are"),
    "output_prune_map": ((), "which tokens there are"),
    "model_architecture": (("LlamaForCausalLM",), "the kind of model"),
    "attention_kwargs": (({},), "the kind of attention"),
    "mlp_type": ((), "layers of different kinds"),
    "normalize_tok_embeddings": ((False,), "the scale of the embedding"),
    "scale_query_by": ((1, 1.0), "the scale of attention scores"),
    "use_attn_o_gate": ((False,), "a gate of the attention"),
    "use_attn_o_norm": ((False,), "a norm after attention"),
    "use_residual_gate": ((False,), "gates of the residual stream"),
    "use_ffn_learnable_scales": ((False,), "the scale of the feed-forward block"),
    "output_soft_cap_temp": ((), "a soft cap of the logits"),
    "output_linear_intermediate_dim": ((0,), "the output projection"),
    "peft_type": ((), "an adapter (LoRA) beside the weights"),
    "base_model_name_or_path": ((), "an adapter (LoRA) beside the weights"),
    "quantization_args": ((), "weights that were quantised before they were saved"),
    "lora_args": ((), "an adapter (LoRA) beside the weights"),
    "r": ((), "an adapter (LoRA) beside the weights"),
    "lora_alpha": ((), "an adapter (LoRA) beside the weights"),
    "target_modules": ((), "an adapter (LoRA) beside the weights"),
}
