"""Tables of rotary position embedding, and the permutation that pairs elements of a head.

Both pairings become one formula, `x * cos + (x @ swap) * sin`, whose sign sits in the table: it
needs no slices, which a delegate with a dynamic sequence length can't express.
"""

from __future__ import annotations

import math

import torch

from models.config import ModelConfig, RopeScaling


def frequencies(config: ModelConfig) -> torch.Tensor:
    """Angle per position of each pair, float32 [head_dim / 2]."""
    exponent = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    turns = 1.0 / (config.rope_theta**exponent)
    if config.rope_scaling is not None:
        turns = _scaled(turns, config.rope_scaling)
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


def rope_tables(config: ModelConfig, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and signed sine for every position, float32 [length, head_dim] each."""
    angles = torch.outer(torch.arange(length).float(), frequencies(config))
    cos, sin = torch.cos(angles), torch.sin(angles)
    if config.rope_pairing == "interleaved":
        return cos.repeat_interleave(2, dim=1), torch.stack((-sin, sin), dim=2).flatten(1)
    return torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)


def swap_matrix(config: ModelConfig) -> torch.Tensor:
    """Permutation that exchanges the partners of each pair, float32 [head_dim, head_dim]."""
    index = torch.arange(config.head_dim)
    if config.rope_pairing == "interleaved":
        partner = index ^ 1
    else:
        partner = (index + config.head_dim // 2) % config.head_dim
    matrix = torch.zeros(config.head_dim, config.head_dim)
    matrix[index, partner] = 1.0
    return matrix
