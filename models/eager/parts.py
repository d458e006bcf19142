"""Parts of a model filled with weights: before the first attention, between two, after the last.

The same parts are lowered, run eagerly as the reference, and exported without a delegate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from models.checkpoint import AFTER, BEFORE, layer_tensors, outer_tensors
from models.config import ModelConfig
from models.eager.decoder import Between, Last, PostAttention, PreAttention, RmsNorm
from models.eager.quantise import Formats, LinearBuilder, LinearFormat

#: Reads a tensor by its full name.
Reader = Callable[[str], torch.Tensor]
PartKind = Literal["first", "between", "last"]


def part_kind(config: ModelConfig, index: int) -> PartKind:
    """Kind of part `index`, of layers + 1 parts."""
    if index == 0:
        return "first"
    return "last" if index == config.layers else "between"


@dataclass(frozen=True, slots=True)
class PartBuilder:
    """Builds any part of a model."""

    config: ModelConfig
    read: Reader
    form_of: Formats
    #: Plain PyTorch with dequantised weights instead of the delegate's graph.
    eager: bool = False
    #: Receives names of Linears that stayed in fp32 against the recipe.
    unquantised: list[str] = field(default_factory=list)

    def build(self, index: int) -> nn.Module:
        """Build part `index`: 0 is before the first attention, `layers` is after the last."""
        kind = part_kind(self.config, index)
        if kind == "first":
            return self.pre(0)
        if kind == "between":
            return Between(self.post(index - 1), self.pre(index))
        norm = RmsNorm(self.read("norm.weight"), self.config.norm_eps)
        output = self._linears("")(("output",), False)
        return Last(self.config, self.post(index - 1), norm, output)

    def forms(self, index: int, kind: PartKind) -> tuple[LinearFormat | None, ...]:
        """Formats of a part's Linears: parts of one kind whose formats are equal are one graph.

        A part of kind `first` may be that of any layer.
        """
        names = [] if kind == "first" else [f"layers.{index - 1}.{name}" for name in AFTER]
        names += ["output"] if kind == "last" else [f"layers.{index}.{name}" for name in BEFORE]
        return tuple(self.form_of(name) for name in names)

    def pre(self, layer: int) -> PreAttention:
        """First half of a layer."""
        prefix = f"layers.{layer}."
        return PreAttention(
            self.config, lambda name: self.read(prefix + name), self._linears(prefix)
        )

    def post(self, layer: int) -> PostAttention:
        """Second half of a layer."""
        prefix = f"layers.{layer}."
        return PostAttention(
            self.config, lambda name: self.read(prefix + name), self._linears(prefix)
        )

    def _linears(self, prefix: str) -> LinearBuilder:
        return LinearBuilder(
            read=self.read,
            prefix=prefix,
            form_of=self.form_of,
            eager=self.eager,
            unquantised=self.unquantised,
        )


def tied_reader(config: ModelConfig, read: Reader) -> Reader:
    """Reader that finds the output weights of a tied model in its embedding table."""
    if not config.tied:
        return read

    def find(name: str) -> torch.Tensor:
        return read("tok_embeddings.weight" if name == "output.weight" else name)

    return find


def synthetic_reader(config: ModelConfig) -> Reader:
    """Random tensors of the right shapes, each different: what a representative is lowered with."""
    shapes = outer_tensors(config) | {"output.weight": (config.vocab, config.dim)}
    generator = torch.Generator().manual_seed(0)

    def make(name: str) -> torch.Tensor:
        shape: Sequence[int] | None = shapes.get(name)
        if shape is None:
            shape = layer_tensors(config, int(name.split(".")[1]))[name]
        return torch.randn(tuple(shape), generator=generator)

    return make
