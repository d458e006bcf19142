"""Weights to integers, and projections that compute with them.

Integers come from torchao's own functions, so they equal those of stock ExecuTorch exports.
Nothing here knows how a projection is delegated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed
import torch.nn.functional as functional
from torch import nn
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    quantize_,
)
from torchao.quantization.granularity import PerAxis, PerGroup

from farm.core.artifact import Recipe
from farm.core.errors import ExportError

#: Longest piece of a float32 row that an artifact sums in one go. XNNPACK adds a row into a single
#: accumulator, which leaves SmolLM2-135M a third farther from eager (`benchmarks/fp32.py`).
SUMMED_AT_ONCE = 256
#: Rows among which the search for scales ends together: a slice of a matrix that begins at a
#: multiple of them is rounded as the whole would be.
_SEARCHED_AT_ONCE = 1024
#: Smallest and largest integer of each weight width.
RANGES = {4: (-8, 7), 8: (-128, 127)}


@dataclass(frozen=True, slots=True)
class QuantisedWeight:
    """A symmetric integer weight [out, in] with one scale per row and group."""

    #: int8 [out, in], whatever the width.
    values: torch.Tensor
    #: [out, in / group], in the dtype that the artifact stores.
    scales: torch.Tensor
    bits: int
    #: Input elements that share a scale; the whole row where there are no groups.
    group: int


@dataclass(frozen=True, slots=True)
class LinearFormat:
    """How a recipe stores and computes a Linear."""

    bits: int
    #: Input elements that share a scale; 0 is the whole row.
    group: int
    #: Activations are quantised to 8 bits, one scale a token.
    dynamic: bool
    #: Scales are searched for (HQQ) instead of following from the largest weight.
    searched: bool = False

    def fits(self, in_features: int) -> bool:
        """Whether rows of this length split into whole groups."""
        return self.group == 0 or in_features % self.group == 0


def linear_format(recipe: Recipe) -> LinearFormat | None:
    """Format of the recipe's Linears; None leaves them in fp32.

    Raises:
        ExportError: The recipe's numbers contradict each other.
    """
    if recipe.linear == "none":
        return None
    if recipe.linear == "int8":
        return LinearFormat(bits=8, group=0, dynamic=True)
    if recipe.linear == "4w":
        if recipe.group_size is not None:
            raise ExportError(
                f"recipe {recipe.name}: XNNPACK has no 4-bit groups with float activations; leave"
                " group_size out (one scale a row), or use 8da4w",
                recipe=recipe.name,
            )
        return LinearFormat(bits=4, group=0, dynamic=False)
    group = recipe.group_size if recipe.group_size is not None else 32
    if group % 32 or group <= 0:
        raise ExportError(
            f"recipe {recipe.name}: group_size is {group}; XNNPACK's 4-bit weights need a"
            " multiple of 32 (32, 64, 128)",
            recipe=recipe.name,
        )
    return LinearFormat(bits=4, group=group, dynamic=True, searched=recipe.scales == "hqq")


#: Format of a Linear by its full name; None leaves it in fp32.
Formats = Callable[[str], LinearFormat | None]


def formats(recipe: Recipe | None) -> Formats:
    """Say which format each Linear of a recipe has; without a recipe all are fp32.

    Raises:
        ExportError: As `linear_format`.
    """
    form = None if recipe is None else linear_format(recipe)
    if recipe is None or form is None:
        return lambda _name: None
    wide, is_wide = LinearFormat(bits=8, group=0, dynamic=form.dynamic), recipe.is_wide
    return lambda name: wide if is_wide(name) else form


def quantise_weight(weight: torch.Tensor, form: LinearFormat) -> QuantisedWeight:
    """Round a weight [out, in] to integers in its own dtype, as stock exports do."""
    rows, columns = weight.shape
    if form.searched and rows > _SEARCHED_AT_ONCE:
        starts = range(0, rows, _SEARCHED_AT_ONCE)
        parts = [quantise_weight(weight[at : at + _SEARCHED_AT_ONCE], form) for at in starts]
        values, scales = (torch.cat([getattr(p, n) for p in parts]) for n in ("values", "scales"))
        return QuantisedWeight(values, scales, form.bits, parts[0].group)
    holder = nn.Linear(columns, rows, bias=False, device="meta")
    holder.weight = nn.Parameter(weight.detach(), requires_grad=False)
    granularity = PerAxis(0) if form.group == 0 else PerGroup(form.group)
    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=getattr(torch, f"int{form.bits}"),
        weight_granularity=granularity,
        intx_choose_qparams_algorithm="hqq_scale_only" if form.searched else "affine",
    )
    quantize_(holder, config)
    rounded: Any = holder.weight
    group = form.group or columns
    scales = rounded.scale.reshape(rows, columns // group)
    # XNNPACK stores scales of groups in bfloat16, those of whole rows in float32.
    stored = torch.bfloat16 if form.group else torch.float32
    return QuantisedWeight(rounded.qdata, scales.to(stored), form.bits, group)


def quantise_embedding(table: torch.Tensor, bits: int, group: int) -> QuantisedWeight:
    """Round an embedding table [vocab, dim]; group 0 is one scale a row."""
    rows, columns = table.shape
    holder = nn.Embedding(rows, columns, device="meta")
    holder.weight = nn.Parameter(table.detach(), requires_grad=False)
    config = IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{bits}"),
        granularity=PerAxis(0) if group == 0 else PerGroup(group),
        intx_choose_qparams_algorithm="affine",
    )
    quantize_(holder, config, lambda module, _: isinstance(module, nn.Embedding))
    rounded: Any = holder.weight
    width = group or columns
    scales = rounded.scale.reshape(rows, columns // width).float()
    return QuantisedWeight(rounded.qdata, scales, bits, width)


def dequantise(weight: QuantisedWeight) -> torch.Tensor:
    """Return the float32 weight that the artifact computes with."""
    rows, columns = weight.values.shape
    grouped = weight.values.view(rows, -1, weight.group).float()
    return (grouped * weight.scales.float().unsqueeze(-1)).view(rows, columns)


def round_activation(x: torch.Tensor) -> torch.Tensor:
    """Quantise to 8 bits and back, one asymmetric scale per token (last dimension)."""
    block = [1] * (x.dim() - 1) + [x.shape[-1]]
    scale, zero = torch.ops.torchao.choose_qparams_affine(
        x, "ASYMMETRIC", block, torch.int8, -128, 127, None, None, torch.int8
    )
    rounded = torch.ops.torchao.quantize_affine(x, block, scale, zero, torch.int8, -128, 127)
    result: torch.Tensor = torch.ops.torchao.dequantize_affine(
        rounded, block, scale, zero, torch.int8, -128, 127
    )
    return result


def quantise_heads(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Round [1, S, H, dim] to int8, one asymmetric scale for each token and head.

    Returns:
        Integers of x's shape, float32 scales [1, S, H, 1] and int8 zero points, same shape.
    """
    ops = torch.ops.quantized_decomposed
    scales, zeros = ops.choose_qparams_per_token_asymmetric(x, torch.int8)
    rounded = ops.quantize_per_token(x, scales, zeros, -128, 127, torch.int8)
    return rounded, scales.to(torch.float32), zeros.to(torch.int8)


def round_heads(x: torch.Tensor) -> torch.Tensor:
    """Quantise [1, S, H, dim] as a cache of integers does, and back."""
    values, scales, zeros = quantise_heads(x)
    return (values.float() - zeros.float()) * scales


class FloatLinears(nn.Module):
    """Projections of one input with float32 weights; with `dynamic`, of the rounded input.

    A row of more than `longest` inputs is summed in pieces, whose sums are added.
    """

    #: Full names of the projections, without `.weight`; empty where nobody gave them.
    tensors: tuple[str, ...] = ()

    def __init__(
        self,
        weights: tuple[torch.Tensor, ...],
        biases: tuple[torch.Tensor | None, ...],
        *,
        dynamic: bool = False,
        longest: int | None = None,
    ) -> None:
        super().__init__()
        self.count = len(weights)
        self.dynamic = dynamic
        width = weights[0].shape[1]
        pieces = -(-width // (longest or width))
        self.bounds = [width * piece // pieces for piece in range(pieces + 1)]
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            for piece, part in enumerate(weight.float().tensor_split(self.bounds[1:-1], dim=1)):
                # A copy of a part: a delegate stores all the memory that a tensor is a part of.
                self.register_buffer(f"w{index}_{piece}", part.contiguous())
            self.register_buffer(f"b{index}", None if bias is None else bias.float())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return one result [1, S, out] per weight."""
        x = round_activation(x) if self.dynamic else x
        spans = list(itertools.pairwise(self.bounds))
        inputs = [x] if len(spans) == 1 else [x[..., first:last] for first, last in spans]
        return tuple(self._project(inputs, i) for i in range(self.count))

    def _project(self, inputs: list[torch.Tensor], index: int) -> torch.Tensor:
        sums = []
        for piece, part in enumerate(inputs):
            bias = getattr(self, f"b{index}") if piece == 0 else None
            sums.append(functional.linear(part, getattr(self, f"w{index}_{piece}"), bias))
        while len(sums) > 1:  # neighbours first, then sums of neighbours
            pairs = [a + b for a, b in zip(sums[::2], sums[1::2], strict=False)]
            sums = pairs + sums[2 * len(pairs) :]
        return sums[0]


class QuantisedLinears(nn.Module):
    """Projections of one input as the graph that XNNPACK delegates.

    The input is quantised once for all of them.
    """

    #: Full names of the projections, without `.weight`; empty where nobody gave them.
    tensors: tuple[str, ...] = ()

    def __init__(
        self,
        weights: tuple[QuantisedWeight, ...],
        biases: tuple[torch.Tensor | None, ...],
        forms: tuple[LinearFormat, ...],
    ) -> None:
        super().__init__()
        self.forms = forms
        self.dynamic = forms[0].dynamic
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            self.register_buffer(f"q{index}", weight.values)
            scales = weight.scales if forms[index].group else weight.scales[:, 0]
            self.register_buffer(f"s{index}", scales.float())
            self.register_buffer(f"z{index}", torch.zeros(scales.shape, dtype=torch.int8))
            self.register_buffer(f"b{index}", None if bias is None else bias.float())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return one result [1, S, out] per weight."""
        x = round_activation(x) if self.dynamic else x
        results = []
        for i, form in enumerate(self.forms):
            low, high = RANGES[form.bits]
            values, scales, zeros = (getattr(self, f"{part}{i}") for part in "qsz")
            if not form.group:
                weight = torch.ops.quantized_decomposed.dequantize_per_channel(
                    values, scales, zeros, 0, low, high, torch.int8
                )
            else:
                weight = torch.ops.torchao.dequantize_affine(
                    values, [1, form.group], scales, zeros, torch.int8, low, high
                )
            bias = getattr(self, f"b{i}")
            if bias is None or self.dynamic:
                results.append(functional.linear(x, weight, bias))
            else:
                # XNNPACK takes a bias only where input and weight are both quantised.
                results.append(functional.linear(x, weight) + bias)
        return tuple(results)


@dataclass(frozen=True, slots=True)
class LinearBuilder:
    """Makes the projections of one layer, and notes which stay in fp32."""

    #: Reads a tensor by its full name.
    read: Callable[[str], torch.Tensor]
    #: Put before the names that a part asks for, for example `layers.0.`.
    prefix: str
    form_of: Formats
    #: Compute with dequantised weights in plain PyTorch instead of the delegate's graph.
    eager: bool
    #: Receives the full names of Linears that the recipe wanted quantised and could not be.
    unquantised: list[str]

    def __call__(self, names: tuple[str, ...], bias: bool) -> nn.Module:
        """Build the projections `names` of one input."""
        full = tuple(self.prefix + name for name in names)
        module = self._build(names, full, bias)
        module.tensors = full
        return module

    def _build(
        self, names: tuple[str, ...], full: tuple[str, ...], bias: bool
    ) -> FloatLinears | QuantisedLinears:
        weights = tuple(self.read(f"{name}.weight") for name in full)
        biases = tuple(self.read(f"{name}.bias") if bias else None for name in full)
        found = tuple(self.form_of(name) for name in full)
        forms = tuple(form for form in found if form is not None)
        if not forms:
            # The output of a tied model shares its weights with the embedding, so they stay whole.
            whole = self.eager or names == ("output",)
            longest = None if whole else SUMMED_AT_ONCE
            return FloatLinears(weights, biases, longest=longest)
        if not all(form.fits(weights[0].shape[1]) for form in forms):
            self.unquantised.extend(full)
            return FloatLinears(weights, biases)
        rounded = tuple(itertools.starmap(quantise_weight, zip(weights, forms, strict=True)))
        if self.eager:
            dense = tuple(dequantise(weight) for weight in rounded)
            return FloatLinears(dense, biases, dynamic=forms[0].dynamic)
        return QuantisedLinears(rounded, biases, forms)
