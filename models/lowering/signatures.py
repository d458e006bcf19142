"""Example inputs of each part, and programs that have a part's shapes and do nothing.

Tracing the program around a delegate asks the delegate only for the shapes of its results. A
program that merely allocates them answers in a fraction of the time the real graph takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from farm.core.artifact import Recipe
from models.config import ModelConfig
from models.eager.parts import PartKind

DynamicShapes = tuple[dict[int, Any], ...] | None


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs to export a part with."""

    inputs: tuple[torch.Tensor, ...]
    dynamic_shapes: DynamicShapes


def part_example(config: ModelConfig, kind: PartKind, recipe: Recipe) -> Example:
    """Inputs of a part; the sequence length is dynamic except in the last one, which sees one."""
    dynamic = recipe.dynamic_shape and kind != "last"
    length = 3 if dynamic else 1
    x = torch.zeros(1, length, config.dim)
    attended = torch.zeros(1, length, config.heads, config.head_dim)
    cos, sin = (torch.zeros(1, length, 1, config.head_dim) for _ in range(2))
    if kind == "first":
        inputs: tuple[torch.Tensor, ...] = (x, cos, sin)
    elif kind == "between":
        inputs = (attended, x, cos, sin)
    else:
        inputs = (attended, x)
    if not dynamic:
        return Example(inputs, None)
    sequence = sequence_dim(recipe)
    return Example(inputs, tuple({1: sequence} for _ in inputs))


def sequence_dim(recipe: Recipe) -> Any:
    """The dynamic length of a forward, in tokens."""
    return torch.export.Dim("sequence", min=1, max=min(recipe.max_seq, recipe.max_context))


class _Shapes(nn.Module):
    """Allocates what a part returns."""

    def __init__(self, config: ModelConfig, kind: PartKind) -> None:
        super().__init__()
        self.config = config
        self.kind = kind

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        config, length = self.config, inputs[0].shape[1]
        x = torch.empty(1, length, config.dim)
        q = torch.empty(1, length, config.heads, config.head_dim)
        k, v = (torch.empty(1, length, config.kv_heads, config.head_dim) for _ in range(2))
        if self.kind == "first":
            return q, k, v
        if self.kind == "between":
            return x, q, k, v
        return (torch.empty(1, length, config.vocab),)


def signature_program(
    config: ModelConfig, kind: PartKind, example: Example
) -> torch.export.ExportedProgram:
    """Program with the inputs and outputs of a part."""
    shapes = None if example.dynamic_shapes is None else (example.dynamic_shapes,)
    return torch.export.export(
        _Shapes(config, kind), example.inputs, dynamic_shapes=shapes, strict=False
    )
