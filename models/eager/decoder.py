"""The decoder as PyTorch modules, cut where a lowered model is cut: before and after attention.

The parts know nothing about quantisation: `Linears` (several projections of one input) come
from a factory. The reference runs the same parts that are exported.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import nn

from models.config import ModelConfig
from models.eager.rope import swap_matrix

#: Builds the projections of one input: names relative to the layer, and whether each has a bias.
LinearsFactory = Callable[[tuple[str, ...], bool], nn.Module]
#: Reads a tensor by its name relative to the layer (or to the model, for the last norm).
TensorReader = Callable[[str], torch.Tensor]


class RmsNorm(nn.Module):
    """Root mean square norm over the last dimension of [1, S, dim] or [1, S, H, dim].

    The mean is taken over a 4-D view, the only form of it that XNNPACK has.
    """

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.weight: torch.Tensor
        self.register_buffer("weight", weight.float())
        self.eps = eps
        self.dim = weight.shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x, keeping its shape."""
        squares = (x * x).view(-1, 1, self.dim, 1).mean((2, 3), keepdim=True)
        shape = (1, -1, 1) if x.dim() == 3 else (1, -1, x.shape[2], 1)
        return x * torch.rsqrt(squares.view(shape) + self.eps) * self.weight


class PreAttention(nn.Module):
    """First half of a layer up to the rotated heads."""

    def __init__(self, config: ModelConfig, read: TensorReader, linears: LinearsFactory) -> None:
        super().__init__()
        self.shape_q = (1, -1, config.heads, config.head_dim)
        self.shape_kv = (1, -1, config.kv_heads, config.head_dim)
        self.norm = RmsNorm(read("attention_norm.weight"), config.norm_eps)
        self.qkv = linears(("attention.wq", "attention.wk", "attention.wv"), config.qkv_bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm:
            self.q_norm = RmsNorm(read("attention.q_norm.weight"), config.norm_eps)
            self.k_norm = RmsNorm(read("attention.k_norm.weight"), config.norm_eps)
        self.swap: torch.Tensor
        self.register_buffer("swap", swap_matrix(config))

    def _rotate(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return x * cos + functional.linear(x, self.swap) * sin

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Project and rotate.

        Args:
            x: Residual stream [1, S, dim].
            cos: Cosines of the S positions [1, S, 1, head_dim].
            sin: Signed sines, same shape.

        Returns:
            Query [1, S, heads, head_dim], key and value [1, S, kv_heads, head_dim].
        """
        q, k, v = self.qkv(self.norm(x))
        q = self.q_norm(q.view(self.shape_q))
        k = self.k_norm(k.view(self.shape_kv))
        return self._rotate(q, cos, sin), self._rotate(k, cos, sin), v.view(self.shape_kv)


class PostAttention(nn.Module):
    """Second half of a layer: output projection and feed-forward block."""

    def __init__(self, config: ModelConfig, read: TensorReader, linears: LinearsFactory) -> None:
        super().__init__()
        self.width = config.heads * config.head_dim
        self.out = linears(("attention.wo",), False)
        self.norm = RmsNorm(read("ffn_norm.weight"), config.norm_eps)
        self.gate_up = linears(("feed_forward.w1", "feed_forward.w3"), False)
        self.down = linears(("feed_forward.w2",), False)

    def forward(self, attended: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Add attention [1, S, heads, head_dim] and feed-forward to x [1, S, dim]."""
        (projected,) = self.out(attended.view(1, -1, self.width))
        x = x + projected
        gate, up = self.gate_up(self.norm(x))
        (fed,) = self.down(functional.silu(gate) * up)
        result: torch.Tensor = x + fed
        return result


class Between(nn.Module):
    """Everything between two attentions: one layer's second half and the next one's first."""

    def __init__(self, post: PostAttention, pre: PreAttention) -> None:
        super().__init__()
        self.post = post
        self.pre = pre

    def forward(
        self, attended: torch.Tensor, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the residual stream and the next query, key and value."""
        x = self.post(attended, x)
        q, k, v = self.pre(x, cos, sin)
        return x, q, k, v


class Last(nn.Module):
    """Second half of the last layer, final norm and output projection."""

    def __init__(self, post: PostAttention, norm: RmsNorm, output: nn.Module) -> None:
        super().__init__()
        self.post = post
        self.norm = norm
        self.output = output

    def forward(self, attended: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Return logits [1, S, vocab], as a tuple because a delegate returns one."""
        (logits,) = self.output(self.norm(self.post(attended, x)))
        return (logits,)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention of a whole text from position 0, in plain PyTorch.

    Args:
        q: Query [1, S, heads, head_dim].
        k: Key [1, S, kv_heads, head_dim].
        v: Value, as key.

    Returns:
        [1, S, heads, head_dim].
    """
    groups = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return attended.transpose(1, 2)
