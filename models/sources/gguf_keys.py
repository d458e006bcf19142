"""Metadata keys of a GGUF, by what they do to logits and ids.

Names are from gguf's `Keys` and from llama.cpp's loader (llama-model.cpp, llama-vocab.cpp) for
the architectures llama, qwen2 and qwen3.

llama.cpp reads `ARCHITECTURE.*`, `tokenizer.*`, `split.*` and `adapter.*`; of `general.*` the
architecture, type and file layout. What other programs put elsewhere can't change its reading.
"""

from __future__ import annotations

from typing import Any

#: Keys after `ARCHITECTURE.` that are read.
USED = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.dimension_count",
        "rope.scaling.type",
        "rope.scaling.factor",
        # The name of rope.scaling.factor before August 2023.
        "rope.scale_linear",
    }
)
#: Keys after `ARCHITECTURE.` that change no logits of these architectures.
HARMLESS = frozenset(
    {
        # As many as the embedding has rows, which is read from the tensor.
        "vocab_size",
        # Where the converter took rows from; they are in llama.cpp's order by then.
        "tensor_data_layout",
        # Used by YaRN only, which is refused by its type.
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
    }
)
#: Keys after `ARCHITECTURE.` that change what is computed, unless they have one of these values.
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "expert_count": ((0,), "a mixture of experts"),
    "expert_used_count": ((0,), "a mixture of experts"),
    "attention.causal": ((True,), "which tokens see which"),
    "attention.sliding_window": ((0,), "how far a token sees back"),
    "attention.scale": ((0.0,), "the scale of attention scores"),
    "attention.clamp_kqv": ((0.0,), "clipped projections"),
    "attention.max_alibi_bias": ((0.0,), "positions without RoPE"),
    "attn_logit_softcapping": ((0.0,), "a soft cap of attention scores"),
    "final_logit_softcapping": ((0.0,), "a soft cap of the logits"),
    "logit_scale": ((0.0, 1.0), "the scale of the logits"),
    "residual_scale": ((0.0, 1.0), "the scale of the residual stream"),
    "embedding_scale": ((0.0, 1.0), "the scale of the embedding"),
    "rope.scaling.attn_factor": ((0.0, 1.0), "the scale of attention scores"),
    "use_parallel_residual": ((False,), "attention beside the feed-forward block"),
    "pooling_type": ((0,), "what is returned: this is an embedding model"),
}

#: Keys after `tokenizer.` that are read.
TOKENIZER_USED = frozenset(
    {
        "ggml.model",
        "ggml.pre",
        "ggml.tokens",
        "ggml.token_type",
        "ggml.scores",
        "ggml.merges",
        "ggml.bos_token_id",
        "ggml.eos_token_id",
        "ggml.eot_token_id",
        "ggml.eom_token_id",
        "ggml.unknown_token_id",
        "ggml.padding_token_id",
        "ggml.add_bos_token",
        "ggml.add_eos_token",
        "ggml.add_space_prefix",
        "chat_template",
    }
)
#: Keys after `tokenizer.` that change no ids of a text and no plain chat: tokens for infilling and
#: for other kinds of models, copies of the tokenizer that llama.cpp doesn't read, further
#: templates (for tools), the vocabularies of embedding models.
TOKENIZER_HARMLESS = frozenset(
    {
        "ggml.token_type_count",
        "ggml.seperator_token_id",
        "ggml.mask_token_id",
        "ggml.cls_token_id",
        "ggml.add_sep_token",
        "ggml.fim_pre_token_id",
        "ggml.fim_suf_token_id",
        "ggml.fim_mid_token_id",
        "ggml.fim_pad_token_id",
        "ggml.fim_rep_token_id",
        "ggml.fim_sep_token_id",
        "ggml.prefix_token_id",
        "ggml.suffix_token_id",
        "ggml.middle_token_id",
        "huggingface.json",
        "chat_templates",
    }
)
#: Keys after `tokenizer.` that change ids, unless they have one of these values.
TOKENIZER_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "ggml.remove_extra_whitespaces": (False,),
    "ggml.precompiled_charsmap": ([],),
    "rwkv.world": (),
}

#: Tensor types that the gguf package doesn't know by name, but files have.
OLD_TYPES = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
