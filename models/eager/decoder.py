"""The decoder as PyTorch modules, cut where a lowered model is cut: before and after attention.

The parts know nothing about quantisation: `Linears` (several projections of one input) come
from a factory. The reference runs the same parts that are exported.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import nn

from models.config import Activation, ModelConfig
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


def norm_of(config: ModelConfig, read: TensorReader, name: str, present: bool) -> nn.Module:
    """A norm by the name of its weight; nothing where the architecture has none there."""
    return RmsNorm(read(f"{name}.weight"), config.norm_eps) if present else nn.Identity()


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """GELU by its tanh formula, written out: XNNPACK's own GELU is the exact one."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": functional.silu,
    "gelu_tanh": _gelu_tanh,
}


def soft_cap(x: torch.Tensor, cap: float) -> torch.Tensor:
    """Keep x between -cap and cap; 0 is no cap."""
    return x if cap == 0.0 else torch.tanh(x / cap) * cap


def hiding(rows: torch.Tensor, columns: torch.Tensor, window: int) -> torch.Tensor:
    """What is added to scores, float32 [rows, columns]: 0 where a token sees the other.

    Elsewhere it is so low that its weight is 0, yet finite: what is seen is 0 times it.

    Args:
        rows: Positions of the tokens that see, float32.
        columns: Positions that are seen.
        window: Tokens that a token sees, itself included; 0 is all before it.
    """
    ahead = columns.view(1, -1) - rows.view(-1, 1)
    far = functional.relu(ahead)
    if window:
        far = far + functional.relu(-ahead - float(window - 1))
    return far * -1e30


class PreAttention(nn.Module):
    """First half of a layer up to the rotated heads."""

    def __init__(self, config: ModelConfig, read: TensorReader, linears: LinearsFactory) -> None:
        super().__init__()
        self.shape_q = (1, -1, config.heads, config.head_dim)
        self.shape_kv = (1, -1, config.kv_heads, config.head_dim)
        self.norm = norm_of(config, read, "attention_norm", config.pre_norm)
        self.qkv = linears(("attention.wq", "attention.wk", "attention.wv"), config.qkv_bias)
        self.q_norm = norm_of(config, read, "attention.q_norm", config.qk_norm)
        self.k_norm = norm_of(config, read, "attention.k_norm", config.qk_norm)
        self.norm_heads = not config.qk_norm_whole
        # Attention divides scores by the root of head_dim; another scale is put into the query.
        self.query_scale = (config.attention_scale or config.head_dim**-0.5) * config.head_dim**0.5
        self.scaled = config.attention_scale not in (0.0, config.head_dim**-0.5)
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
        if self.norm_heads:
            q, k = self.q_norm(q.view(self.shape_q)), self.k_norm(k.view(self.shape_kv))
        else:
            q, k = self.q_norm(q).view(self.shape_q), self.k_norm(k).view(self.shape_kv)
        q = self._rotate(q, cos, sin)
        q = q * self.query_scale if self.scaled else q
        return q, self._rotate(k, cos, sin), v.view(self.shape_kv)


class PostAttention(nn.Module):
    """Second half of a layer: output projection and feed-forward block."""

    def __init__(self, config: ModelConfig, read: TensorReader, linears: LinearsFactory) -> None:
        super().__init__()
        self.width = config.heads * config.head_dim
        self.out = linears(("attention.wo",), False)
        self.out_norm = norm_of(config, read, "attention_post_norm", config.post_norm)
        self.norm = norm_of(config, read, "ffn_norm", config.pre_norm)
        self.gate_up = linears(("feed_forward.w1", "feed_forward.w3"), False)
        self.down = linears(("feed_forward.w2",), False)
        self.down_norm = norm_of(config, read, "ffn_post_norm", config.post_norm)
        self.activation = ACTIVATIONS[config.activation]
        self.scale = config.residual_scale

    def forward(self, attended: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Add attention [1, S, heads, head_dim] and feed-forward to x [1, S, dim]."""
        (projected,) = self.out(attended.view(1, -1, self.width))
        x = x + self._scaled(self.out_norm(projected))
        gate, up = self.gate_up(self.norm(x))
        (fed,) = self.down(self.activation(gate) * up)
        return x + self._scaled(self.down_norm(fed))

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.scale == 1.0 else x * self.scale


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

    def __init__(
        self, config: ModelConfig, post: PostAttention, norm: RmsNorm, output: nn.Module
    ) -> None:
        super().__init__()
        self.config = config
        self.post = post
        self.norm = norm
        self.output = output

    def forward(self, attended: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Return logits [1, S, vocab], as a tuple because a delegate returns one."""
        (logits,) = self.output(self.norm(self.post(attended, x)))
        return (finish_logits(self.config, logits),)


def finish_logits(config: ModelConfig, logits: torch.Tensor) -> torch.Tensor:
    """What comes after the output projection."""
    if config.logit_scale != 1.0:
        logits = logits * config.logit_scale
    return soft_cap(logits, config.logit_cap)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int = 0, cap: float = 0.0
) -> torch.Tensor:
    """Causal attention of a whole text from position 0, in plain PyTorch.

    Args:
        q: Query [1, S, heads, head_dim].
        k: Key [1, S, kv_heads, head_dim].
        v: Value, as key.
        window: Tokens that a token sees, itself included; 0 is all before it.
        cap: Soft cap of the scores; 0 is none.

    Returns:
        [1, S, heads, head_dim].
    """
    groups, count = q.shape[2] // k.shape[2], q.shape[1]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    if not window and not cap:
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return attended.transpose(1, 2)
    places = torch.arange(count).float()
    scores = soft_cap(q @ k.transpose(2, 3) * q.shape[3] ** -0.5, cap)
    weights = functional.softmax(scores + hiding(places, places, window), dim=-1)
    return (weights @ v).transpose(1, 2).contiguous()
