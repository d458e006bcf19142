"""The table of built-in recipes. A new one is one more entry."""

from __future__ import annotations

from dataclasses import replace

from farm.core.artifact import Recipe

_FP32 = Recipe(name="xnnpack-fp32")
_8DA4W = replace(_FP32, name="xnnpack-8da4w", linear="8da4w", group_size=32, embedding_bits=8)
# Delegates for GPUs take whole attentions of one token, and neither fused operators nor dynamic
# lengths.
_STOCK_GPU = replace(
    _FP32, name="stock", engine="stock", custom_sdpa=False, dynamic_shape=False, max_seq=1
)

BUILTIN: tuple[Recipe, ...] = (
    _FP32,
    _8DA4W,
    replace(_8DA4W, name="xnnpack-8da4w-g64", group_size=64),
    replace(_8DA4W, name="xnnpack-8da4w-g128", group_size=128),
    replace(_8DA4W, name="xnnpack-8da4w-emb4", embedding_bits=4, embedding_group=32),
    # What keeps quality: see `farm recipes compare`.
    replace(_8DA4W, name="xnnpack-8da4w-hqq", scales="hqq"),
    replace(_8DA4W, name="xnnpack-8da4w-out8", output_bits=8),
    replace(_8DA4W, name="xnnpack-8da4w-hqq-out8", scales="hqq", output_bits=8),
    # Keys and values have few rows in grouped attention, and an error there reaches all of them.
    replace(
        _8DA4W,
        name="xnnpack-8da4w-hqq-kv",
        scales="hqq",
        wide=("attention.wk", "attention.wv"),
    ),
    replace(_8DA4W, name="xnnpack-8da4w-rot", rotated=True),
    replace(_8DA4W, name="xnnpack-8da4w-rot-hqq-out8", rotated=True, scales="hqq", output_bits=8),
    replace(_8DA4W, name="xnnpack-8da4w-kv8", quantised_kv_cache=True),
    replace(_8DA4W, name="xnnpack-8da4w-plain-sdpa", custom_sdpa=False),
    replace(_8DA4W, name="xnnpack-8da4w-ctx2048", max_context=2048, max_seq=2048),
    replace(_8DA4W, name="xnnpack-8da4w-ptd", external_weights=True),
    replace(_8DA4W, name="xnnpack-8da4w-static", dynamic_shape=False, max_seq=1),
    replace(_FP32, name="xnnpack-4w", linear="4w", embedding_bits=8),
    replace(_FP32, name="xnnpack-int8", linear="int8", embedding_bits=8),
    replace(_FP32, name="portable-fp32", backend="portable"),
    replace(_8DA4W, name="stock-xnnpack-8da4w", engine="stock"),
    replace(_STOCK_GPU, name="stock-vulkan", backend="vulkan"),
    replace(_STOCK_GPU, name="stock-coreml", backend="coreml"),
    # The model's own GGUF as it is: nothing is exported, and the runner makes the context.
    Recipe(
        name="gguf",
        engine="none",
        backend="ggml",
        custom_sdpa=False,
        max_context=32768,
        max_seq=32768,
    ),
)
