"""Every weight of a written artifact, read back from its files and held against the checkpoint.

What an artifact computes with is decoded from its bytes by code that shares nothing with the
quantiser: a wrong scale, group, width or order shows here, tensor by tensor, where the noise of
logits hides it. `farm.judge.weights` says what is near enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy
import numpy.typing as npt
import torch
from torch import nn

from farm.core.artifact import Recipe, TensorCheck
from models.config import ModelConfig
from models.eager.parts import tied_reader
from models.eager.quantise import (
    FloatLinears,
    LinearFormat,
    QuantisedLinears,
    formats,
)
from models.eager.rope import rope_tables
from models.lowering.written import Constant

_Floats = npt.NDArray[numpy.float32]
#: Reads a tensor of the checkpoint by its full name.
Reader = Callable[[str], torch.Tensor]

#: Numbers of a tensor that are compared at a time.
_BLOCK = 1 << 22
#: Relative rounding of a number in each dtype; 0 in float32, which is what is compared.
_ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
#: Norms of a part by their names in it, and the names of their weights in a layer.
_NORMS = {
    "pre.norm": "attention_norm",
    "pre.q_norm": "attention.q_norm",
    "pre.k_norm": "attention.k_norm",
    "post.out_norm": "attention_post_norm",
    "post.norm": "ffn_norm",
    "post.down_norm": "ffn_post_norm",
}


class Constants(Protocol):
    """The constants of an artifact, as `models.lowering.written.Written` reads them."""

    named: Mapping[str, memoryview]

    def constants(self) -> Iterator[Constant]:
        """Constant tensors outside the delegates."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the weights of one tensor stand in the delegates."""

    #: Name in the checkpoint.
    tensor: str
    #: Names of the constants that hold its numbers, in pieces side by side.
    values: tuple[str, ...]
    #: Name of the constant with its scales; None where it is stored as float32.
    scales: str | None = None


def placed(module: nn.Module, keys: Mapping[str, str], index: int, layers: int) -> list[Placed]:
    """Say where the tensors of a part stand.

    Args:
        module: The part as it was built.
        keys: Name of a buffer in the module -> name of the constant.
        index: Number of the part, of layers + 1.
        layers: Layers of the model.
    """
    found: list[Placed] = []
    for prefix, child in module.named_modules():
        dot = f"{prefix}." if prefix else ""
        if not isinstance(child, QuantisedLinears | FloatLinears):
            continue
        for number, name in enumerate(child.tensors):
            if isinstance(child, QuantisedLinears):
                values = (keys[f"{dot}q{number}"],)
                found.append(Placed(f"{name}.weight", values, keys[f"{dot}s{number}"]))
            else:
                count = len(child.bounds) - 1
                pieces = tuple(keys[f"{dot}w{number}_{piece}"] for piece in range(count))
                found.append(Placed(f"{name}.weight", pieces))
            if f"{dot}b{number}" in keys:
                found.append(Placed(f"{name}.bias", (keys[f"{dot}b{number}"],)))
    for name, key in keys.items():
        norm = _norm_name(name, index, layers)
        if norm is not None:
            found.append(Placed(norm, (key,)))
    return found


def _norm_name(buffer: str, index: int, layers: int) -> str | None:
    """Full name of the norm weight that a buffer of part `index` holds; None: it holds none."""
    stem, _, last = buffer.rpartition(".")
    if last != "weight":
        return None
    if index == layers and stem == "norm":
        return "norm.weight"
    if index == 0:
        stem = f"pre.{stem}"
    name = _NORMS.get(stem)
    if name is None:
        return None
    layer = index if stem.startswith("pre.") else index - 1
    return f"layers.{layer}.{name}.weight"


def check_weights(
    config: ModelConfig, recipe: Recipe, read: Reader, where: Iterable[Placed], written: Constants
) -> Iterator[TensorCheck]:
    """Compare every weight of a written artifact with its source.

    Args:
        config: Shape of the model.
        recipe: What the artifact was asked to be.
        read: Reads the checkpoint.
        where: As `placed` gives it, of all parts.
        written: The artifact.
    """
    source = tied_reader(config, read)
    form_of = formats(recipe)
    for one in where:
        form = None if one.scales is None else form_of(one.tensor.removesuffix(".weight"))
        yield _check_linear(one, source(one.tensor), form, written)
    yield _check_embedding(source("tok_embeddings.weight"), recipe, written)
    yield from _check_rotations(config, recipe, written)


def _check_linear(
    one: Placed, source: torch.Tensor, form: LinearFormat | None, written: Constants
) -> TensorCheck:
    keys = (*one.values, *(() if one.scales is None else (one.scales,)))
    missing = [key for key in keys if key not in written.named]
    if missing:
        return TensorCheck(one.tensor, None, reason=f"the artifact has no constant {missing[0]}")
    if one.scales is None:
        rows = 1 if source.dim() == 1 else source.shape[0]
        pieces = [_floats(written.named[key], rows) for key in one.values]
        return _compared(one.tensor, source.view(rows, -1), lambda a, b: _side(pieces, a, b))
    if form is None:
        return TensorCheck(one.tensor, None, reason="stored as integers, the recipe asks for none")
    rows, columns = source.shape
    group = form.group or columns
    scales = _scales(written.named[one.scales], form.group, rows, columns // group)
    packed = written.named[one.values[0]]
    if scales is None or len(packed) != rows * columns * form.bits // 8:
        return TensorCheck(one.tensor, form.bits, reason="scales or weights of another shape")
    integers = numpy.frombuffer(packed, "u1").reshape(rows, -1)

    def stored(first: int, last: int) -> _Floats:
        block = integers[first:last]
        values = _nibbles(block, low_first=True) if form.bits == 4 else block.view("i1")
        return _scaled(values, scales[first:last], group)

    rounding = 2.0**-8 if form.group else 0.0
    found = _compared(
        one.tensor, source, stored, bits=form.bits, scales=scales, scale_rounding=rounding,
        searched=form.searched,
    )  # fmt: skip
    return replace(found, searched=form.searched)


def _check_embedding(source: torch.Tensor, recipe: Recipe, written: Constants) -> TensorCheck:
    name, bits = "tok_embeddings.weight", recipe.embedding_bits
    rows, columns = source.shape
    if bits is None:
        found = [
            constant.values
            for constant in written.constants()
            if constant.values.dtype == numpy.float32 and constant.values.shape == (rows, columns)
        ]
        if not found:
            return TensorCheck(name, None, reason="no constant of its shape is in the artifact")
        return _compared(name, source, lambda a, b: found[0][a:b].astype("<f4"))
    group = recipe.embedding_group or columns
    table = scales = None
    for constant in written.constants():
        shape, kind = constant.values.shape, constant.values.dtype
        if shape == (rows, columns * bits // 8) and kind.itemsize == 1:
            table = constant.values
        if kind == numpy.float32 and shape in ((rows,), (rows, columns // group)):
            scales = constant.values.astype("<f4").reshape(rows, -1)
    if table is None or scales is None:
        return TensorCheck(name, bits, reason="no constants of its shape are in the artifact")

    def stored(first: int, last: int) -> _Floats:
        block = table[first:last]
        values = _nibbles(block.view("u1"), low_first=False) if bits == 4 else block.view("i1")
        return _scaled(values, scales[first:last], group)

    return _compared(name, source, stored, bits=bits, scales=scales)


def _check_rotations(
    config: ModelConfig, recipe: Recipe, written: Constants
) -> Iterator[TensorCheck]:
    """The tables of rotary position embedding, which hold positions and so the whole context."""
    shape = (recipe.max_context, config.head_dim)
    found = [
        constant.values
        for constant in written.constants()
        if constant.values.dtype == numpy.float32 and constant.values.shape == shape
    ]
    kinds = dict.fromkeys(config.rope_kind(layer) for layer in range(config.layers))
    for kind in kinds:
        tables = zip(("cos", "sin"), rope_tables(config, shape[0], kind), strict=True)
        for name, table in tables:
            title = f"rope.{name}_{kind}"
            if not found:
                yield TensorCheck(title, None, reason="no table of its shape is in the artifact")
                continue
            wanted = table.numpy()
            # Which of several is meant, no name says: the nearest one.
            nearest = min(found, key=lambda one: float(numpy.abs(one - wanted).max()))
            rows = nearest.astype("<f4")
            yield _compared(title, table, lambda a, b, rows=rows: rows[a:b])  # type: ignore[misc]


def _floats(data: memoryview, rows: int) -> _Floats:
    return numpy.frombuffer(data, "<f4").reshape(rows, -1)


def _side(pieces: list[_Floats], first: int, last: int) -> _Floats:
    return numpy.concatenate([piece[first:last] for piece in pieces], axis=1)


def _scales(data: memoryview, group: int, rows: int, columns: int) -> _Floats | None:
    """Scales of groups, which are bfloat16, or of rows; None where their number is wrong."""
    if len(data) != rows * columns * (2 if group else 4):
        return None
    if not group:
        return numpy.frombuffer(data, "<f4").reshape(rows, columns)
    high = numpy.frombuffer(data, "<u2").astype("<u4") << 16
    return high.view("<f4").reshape(rows, columns)


def _nibbles(packed: npt.NDArray[numpy.generic], *, low_first: bool) -> npt.NDArray[numpy.int8]:
    """Integers -8..7 out of bytes [rows, columns / 2]."""
    data = packed.view("u1")
    low, high = data & 15, data >> 4
    pair = (low, high) if low_first else (high, low)
    result: npt.NDArray[numpy.int8] = numpy.stack(pair, axis=2).reshape(len(data), -1).astype("i1")
    return result - numpy.int8(8)


def _scaled(values: npt.NDArray[numpy.generic], scales: _Floats, group: int) -> _Floats:
    rows, columns = values.shape
    grouped = values.astype("<f4").reshape(rows, -1, group)
    result: _Floats = (grouped * scales[:, :, None]).reshape(rows, columns)
    return result


def _compared(
    name: str,
    source: torch.Tensor,
    stored: Callable[[int, int], _Floats],
    *,
    bits: int | None = None,
    scales: _Floats | None = None,
    scale_rounding: float = 0.0,
    searched: bool = False,
) -> TensorCheck:
    """Compare row block by row block; `stored(first, last)` gives rows as the artifact has them."""
    rows, columns = source.shape
    squares = products = errors = worst = off = 0.0
    step = max(1, _BLOCK // columns)
    for first in range(0, rows, step):
        ours = source[first : first + step].float().numpy().astype("<f8")
        theirs = stored(first, first + step)
        if theirs.shape != ours.shape:
            return TensorCheck(name, bits, reason=f"{theirs.shape} numbers, {ours.shape} expected")
        difference = theirs - ours
        squares += float((ours * ours).sum())
        products += float((ours * theirs).sum())
        errors += float((difference * difference).sum())
        if scales is not None and bits is not None:
            block = scales[first : first + step]
            far, wrong = _by_group(ours, theirs, block, bits, searched=searched)
            worst, off = max(worst, far), max(off, wrong)
    if not math.isfinite(products) or squares == 0.0:
        return TensorCheck(name, bits, reason="its numbers are not finite, or all zero")
    return TensorCheck(
        name,
        bits,
        error=math.sqrt(errors / squares),
        gain=products / squares,
        steps=None if scales is None else worst,
        scale_error=None if scales is None else off,
        scale_rounding=scale_rounding,
        source_rounding=_ROUNDING.get(source.dtype, 0.0),
    )


def _by_group(
    ours: npt.NDArray[numpy.float64],
    theirs: _Floats,
    scales: _Floats,
    bits: int,
    *,
    searched: bool,
) -> tuple[float, float]:
    """Greatest difference in steps of its group's scale, and of a scale from the ideal, relative.

    A symmetric integer reaches from -2^(bits-1) to one less: the ideal scale puts the greatest
    weight of a group midway, where both signs lose half a step. Steps are those of the ideal
    scale; where scales were searched for, of the stored one, and what it can't reach is cut.
    """
    groups = scales.shape[1]
    blocks = numpy.abs(ours).reshape(len(ours), groups, -1)
    ideal = best = blocks.max(axis=2) / (2 ** (bits - 1) - 0.5)
    full = best > 0
    if searched:
        ideal, wanted = scales.astype("<f8"), _cut(ours, scales, bits)
        full = (best > 0) & (ideal > 0)
    else:
        wanted = ours
    far = numpy.abs(theirs - wanted).reshape(blocks.shape).max(axis=2)
    steps = numpy.where(
        full, far / numpy.where(full, ideal, 1.0), numpy.where(far > 0, numpy.inf, 0)
    )
    off = numpy.abs(scales / numpy.where(best > 0, best, 1.0) - 1.0)[best > 0]
    return float(steps.max()), float(off.max(initial=0.0))


def _cut(
    ours: npt.NDArray[numpy.float64], scales: _Floats, bits: int
) -> npt.NDArray[numpy.float64]:
    """Weights as far as integers of these scales reach."""
    rows, groups = scales.shape
    grouped, wide = ours.reshape(rows, groups, -1), scales[:, :, None].astype("<f8")
    reach = 2.0 ** (bits - 1)
    cut: npt.NDArray[numpy.float64] = numpy.clip(grouped, -reach * wide, (reach - 1) * wide)
    return cut.reshape(ours.shape)
