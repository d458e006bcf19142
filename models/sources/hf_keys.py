"""Keys of config.json, by what they do to logits. A key in no table is refused by its name.

Read from transformers' config classes (4.x and 5.x), and from what the hub's files hold. What
belongs to one family stands in `hf_families`. A null is as if the key were not there, but for the
few where transformers takes it for "none" (windows, soft caps).
"""

from __future__ import annotations

from typing import Any

#: Read by `hf_config.read_config`.
USED = frozenset(
    {
        "model_type",
        "architectures",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "vocab_size",
        "rms_norm_eps",
        "max_position_embeddings",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "tie_word_embeddings",
        "use_sliding_window",
        "sliding_window",
        "max_window_layers",
        "layer_types",
        # Read by the tokenizer's rules where generation_config.json has none.
        "eos_token_id",
    }
)

#: Where a file comes from and how it was saved: names, versions, the dtype that weights had. The
#: dtype of every tensor is in the weight files.
_PROVENANCE = frozenset(
    {
        "_name_or_path",
        "name_or_path",
        "_commit_hash",
        "_from_model_config",
        "transformers_version",
        "transformers.js_config",
        "torch_dtype",
        "dtype",
        "is_llama_config",
        "unsloth_fixed",
        "unsloth_version",
        "license",
    }
)
#: Read in training only: starting values, dropout (off in inference), losses, checkpointing.
_TRAINING = frozenset(
    {
        "initializer_range",
        "attention_dropout",
        "hidden_dropout",
        "resid_pdrop",
        "embd_pdrop",
        "attn_pdrop",
        "attention_probs_dropout_prob",
        "hidden_dropout_prob",
        "gradient_checkpointing",
        # Cuts a product into slices and adds them up again: the same sum.
        "pretraining_tp",
        "finetuning_task",
        "task_specific_params",
        "problem_type",
        "id2label",
        "label2id",
        "num_labels",
    }
)
#: How a framework runs a model: caches, kernels, what is returned. The logits are the same.
_SERVING = frozenset(
    {
        "use_cache",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "tie_last_hidden_states",
        "torchscript",
        "use_bfloat16",
        "tf_legacy_loss",
        "chunk_size_feed_forward",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_attn_implementation_internal",
        "cache_implementation",
        "experts_implementation",
        "_experts_implementation_internal",
        "_flash_attn_2_enabled",
        "keys_to_ignore_at_inference",
        # Old names for how much text the tokenizer takes.
        "max_sequence_length",
        "model_max_length",
    }
)
#: Ids of special tokens and the tokenizer's class: the tokenizer's own files decide both.
_TOKENS = frozenset(
    {
        "bos_token_id",
        "pad_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "tokenizer_class",
        "prefix",
    }
)
#: transformers takes these out of config.json (they belong into generation_config.json): how a
#: reply is searched for, with logits that are what they are.
_GENERATION = frozenset(
    {
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "bad_words_ids",
        "begin_suppress_tokens",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "epsilon_cutoff",
        "eta_cutoff",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "max_new_tokens",
        "min_length",
        "no_repeat_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict_in_generate",
        "suppress_tokens",
        "target_lookbehind",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    }
)
HARMLESS = _PROVENANCE | _TRAINING | _SERVING | _TOKENS | _GENERATION

#: Keys that change what is computed, unless they have one of these values: value and effect.
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "hidden_act": (("silu", "swish"), "the activation of the feed-forward block"),
    "hidden_activation": (("silu", "swish"), "the activation of the feed-forward block"),
    "attention_bias": ((False,), "biases of the attention's projections"),
    "mlp_bias": ((False,), "biases of the feed-forward block"),
    "qkv_bias": ((False,), "biases of query, key and value"),
    "use_bias": ((False,), "biases of the projections"),
    "lm_head_bias": ((False,), "a bias of the output"),
    "partial_rotary_factor": ((1, 1.0), "how much of a head is rotated"),
    "rotary_pct": ((1, 1.0), "how much of a head is rotated"),
    "rope_interleaved": ((False,), "which elements of a head turn together"),
    "use_mrope": ((False,), "RoPE in several dimensions"),
    "no_rope_layer_interval": ((0,), "layers without RoPE"),
    "embedding_multiplier": ((1, 1.0), "the scale of the embedding"),
    "residual_multiplier": ((1, 1.0), "the scale of the residual stream"),
    "logits_scaling": ((1, 1.0), "the scale of the logits"),
    "logit_scale": ((1, 1.0), "the scale of the logits"),
    "attention_multiplier": ((), "the scale of attention scores"),
    "query_pre_attn_scalar": ((), "the scale of attention scores"),
    "final_logit_softcapping": ((), "a soft cap of the logits"),
    "attn_logit_softcapping": ((), "a soft cap of attention scores"),
    "clip_qkv": ((), "clipped projections"),
    "qk_layernorm": ((False,), "norms of query and key"),
    "parallel_attn": ((False,), "attention beside the feed-forward block"),
    "use_parallel_residual": ((False,), "attention beside the feed-forward block"),
    "alibi": ((False,), "positions without RoPE"),
    "is_causal": ((True,), "which tokens see which"),
    "use_bidirectional_attention": ((False,), "which tokens see which"),
    "is_decoder": ((False, True), "attention to an encoder"),
    "is_encoder_decoder": ((False,), "an encoder"),
    "add_cross_attention": ((False,), "attention to an encoder"),
    "tie_encoder_decoder": ((False,), "an encoder"),
    "cross_attention_hidden_size": ((), "attention to an encoder"),
    "pruned_heads": (({},), "heads that were taken out"),
    "num_experts": ((0,), "a mixture of experts"),
    "num_local_experts": ((0,), "a mixture of experts"),
    "per_layer_config": (({},), "layers of different shapes"),
    "auto_map": ((), "the code that the model comes with"),
    "interpolate_factor": ((), "how positions are counted"),
    "full_attn_mod": ((), "which tokens see which"),
}

#: Keys of `rope_scaling` and `rope_parameters` by kind of RoPE; other kinds are refused.
ROPE_USED: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset(
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    ),
    "yarn": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        }
    ),
    "longrope": frozenset(
        {
            "factor",
            "short_factor",
            "long_factor",
            "original_max_position_embeddings",
            "attention_factor",
        }
    ),
}
#: Keys that every kind may have.
ROPE_COMMON = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})

#: Keys that say how weights were quantised before they were saved, by who writes them.
QUANTISED = ("quantization_config", "compression_config", "quantization")
