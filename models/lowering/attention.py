"""Attention between the delegates: the KV cache and what reads it."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn

from models.config import ModelConfig
from models.eager.decoder import soft_cap
from models.eager.quantise import quantise_heads


class CustomAttention(nn.Module):
    """KV cache and attention as ExecuTorch's fused operators (`llama::custom_sdpa`)."""

    def __init__(self, config: ModelConfig, length: int) -> None:
        super().__init__()
        shape = (1, length, config.kv_heads, config.head_dim)
        self.register_buffer("k_cache", torch.zeros(shape))
        self.register_buffer("v_cache", torch.zeros(shape))

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        position: int,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Store key and value at `position`, and attend to all up to there.

        Args:
            q: [1, S, heads, head_dim].
            k: [1, S, kv_heads, head_dim].
            v: As k.
            position: Position of the first of the S tokens.
            mask: What is added to scores, [S, length of the cache]; None hides only later tokens.

        Returns:
            [1, S, heads, head_dim].
        """
        torch.ops.llama.update_cache(k, self.k_cache, position)
        torch.ops.llama.update_cache(v, self.v_cache, position)
        attended: torch.Tensor = torch.ops.llama.custom_sdpa(
            q, self.k_cache, self.v_cache, position, mask, 0.0, mask is None
        )
        return attended


class QuantisedAttention(nn.Module):
    """CustomAttention with a cache of 8-bit integers, a scale and a zero point per head and token.

    The query is rounded alike: `llama::custom_quantized_sdpa` multiplies integers.
    """

    def __init__(self, config: ModelConfig, length: int) -> None:
        super().__init__()
        shape = (1, length, config.kv_heads, config.head_dim)
        for name in ("k", "v"):
            self.register_buffer(f"{name}_cache", torch.zeros(shape, dtype=torch.int8))
            self.register_buffer(f"{name}_scales", torch.ones((*shape[:3], 1)))
            self.register_buffer(f"{name}_zeros", torch.zeros((*shape[:3], 1), dtype=torch.int8))

    def _store(self, name: str, value: torch.Tensor, position: int) -> tuple[torch.Tensor, ...]:
        cached = tuple(getattr(self, f"{name}_{part}") for part in ("cache", "scales", "zeros"))
        for new, cache in zip(quantise_heads(value), cached, strict=True):
            torch.ops.llama.update_cache(new, cache, position)
        return cached

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        position: int,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As in CustomAttention."""
        keys, k_scales, k_zeros = self._store("k", k, position)
        values, v_scales, v_zeros = self._store("v", v, position)
        query, q_scales, q_zeros = quantise_heads(q)
        attended: torch.Tensor = torch.ops.llama.custom_quantized_sdpa(
            query,
            keys,
            values,
            position,
            mask,
            0.0,
            mask is None,
            None,
            q_zeros,
            q_scales,
            k_zeros,
            k_scales,
            v_zeros,
            v_scales,
        )
        return attended


class PlainAttention(nn.Module):
    """The same in core operators: slower, and runs where the fused ones are missing."""

    def __init__(self, config: ModelConfig, length: int) -> None:
        super().__init__()
        self.config = config
        self.scale = config.head_dim**-0.5
        self.k_cache: torch.Tensor
        self.v_cache: torch.Tensor
        shape = (1, length, config.kv_heads, config.head_dim)
        self.register_buffer("k_cache", torch.zeros(shape))
        self.register_buffer("v_cache", torch.zeros(shape))

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        position: int,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        """As in CustomAttention; the mask has to be given."""
        config, count = self.config, q.shape[1]
        groups = config.heads // config.kv_heads
        self.k_cache.narrow(1, position, count).copy_(k)
        self.v_cache.narrow(1, position, count).copy_(v)
        # The heads that share keys are rows of one matrix.
        heads = q.view(1, count, config.kv_heads, groups, config.head_dim).permute(0, 2, 3, 1, 4)
        rows = heads.reshape(1, config.kv_heads, groups * count, config.head_dim)
        scores = soft_cap(rows @ self.k_cache.permute(0, 2, 3, 1) * self.scale, config.score_cap)
        length = self.v_cache.shape[1]
        shown = scores.view(1, config.kv_heads, groups, count, length) + mask
        weights = functional.softmax(shown, dim=-1).view(1, config.kv_heads, -1, length)
        attended = (weights @ self.v_cache.transpose(1, 2)).view(
            1, config.kv_heads, groups, count, config.head_dim
        )
        tokens = attended.permute(0, 3, 1, 2, 4).contiguous()
        return tokens.view(1, count, config.heads, config.head_dim)
