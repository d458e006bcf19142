"""Tables of rotary position embedding, and the permutation that pairs elements of a head.

Both pairings become one formula, `x * cos + (x @ swap) * sin`, whose sign sits in the table: it
needs no slices, which a delegate with a dynamic sequence length can't express.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional

from models.config import ModelConfig, RopeKind, RopeScaling, YarnScaling


def frequencies(config: ModelConfig, kind: RopeKind = "global") -> torch.Tensor:
    """Angle per position of each pair, float32 [rotated elements / 2]."""
    rotated = config.rotary_dim or config.head_dim
    exponent = torch.arange(0, rotated, 2).float() / rotated
    if kind == "local":
        return 1.0 / (config.local_rope_theta**exponent)
    turns = 1.0 / (config.rope_theta**exponent)
    if isinstance(config.rope_scaling, RopeScaling):
        turns = _scaled(turns, config.rope_scaling)
    if isinstance(config.rope_scaling, YarnScaling):
        turns = _stretched(turns, config.rope_theta, config.rope_scaling)
    if config.rope_factors:
        turns = turns / torch.tensor(config.rope_factors, dtype=torch.float32)
    return turns


def _scaled(turns: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Llama 3.1: long waves slow down by `factor`, short ones stay, those between blend."""
    waves = 2 * math.pi / turns
    longest = scaling.original_context / scaling.low_freq_factor
    shortest = scaling.original_context / scaling.high_freq_factor
    span = scaling.high_freq_factor - scaling.low_freq_factor
    blend = (scaling.original_context / waves - scaling.low_freq_factor) / span
    between = (1 - blend) * turns / scaling.factor + blend * turns
    slowed = torch.where(waves > longest, turns / scaling.factor, between)
    return torch.where(waves < shortest, turns, slowed)


def _stretched(turns: torch.Tensor, theta: float, yarn: YarnScaling) -> torch.Tensor:
    """YaRN: between two pairs the rotations pass from what they were to `factor` times slower."""
    pairs = len(turns)

    def pair(count: float) -> float:
        """The pair that turns `count` times within the original context."""
        waves = math.log(yarn.original_context / (count * 2 * math.pi))
        return 2 * pairs * waves / (2 * math.log(theta))

    low, high = pair(yarn.beta_fast), pair(yarn.beta_slow)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    span = high - low if high != low else 0.001
    stretched = ((torch.arange(pairs).float() - low) / span).clamp(0, 1)
    return turns / yarn.factor * stretched + turns * (1 - stretched)


def rope_tables(
    config: ModelConfig, length: int, kind: RopeKind = "global"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and signed sine for every position, float32 [length, head_dim] each.

    What isn't rotated has cosine 1 and sine 0: layers of all kinds are one graph.
    """
    if kind == "none":
        return torch.ones(length, config.head_dim), torch.zeros(length, config.head_dim)
    angles = torch.outer(torch.arange(length).float(), frequencies(config, kind))
    scale = config.rope_scale if kind == "global" else 1.0
    cos, sin = torch.cos(angles) * scale, torch.sin(angles) * scale
    if config.rope_pairing == "interleaved":
        cos, sin = cos.repeat_interleave(2, dim=1), torch.stack((-sin, sin), dim=2).flatten(1)
    else:
        cos, sin = torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)
    rest = config.head_dim - cos.shape[1]
    return functional.pad(cos, (0, rest), value=1.0), functional.pad(sin, (0, rest))


def swap_matrix(config: ModelConfig) -> torch.Tensor:
    """Permutation that exchanges the partners of each pair, float32 [head_dim, head_dim]."""
    index = torch.arange(config.head_dim)
    rotated = config.rotary_dim or config.head_dim
    if config.rope_pairing == "interleaved":
        partner = index ^ 1
    else:
        partner = (index + rotated // 2) % rotated
    partner = torch.where(index < rotated, partner, index)
    matrix = torch.zeros(config.head_dim, config.head_dim)
    matrix[index, partner] = 1.0
    return matrix
