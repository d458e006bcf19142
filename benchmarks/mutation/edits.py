"""What faults do to weights, tables and source lines; the table names them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import torch

from benchmarks.mutation.inject import (
    Edited,
    Values,
    artifact,
    config,
    runner,
    scales_of,
)
from benchmarks.mutation.workbench import Workbench
from farm.core.artifact import Recipe
from models.checkpoint import TokenizerData
from models.eager.quantise import (
    LinearFormat,
    QuantisedWeight,
    dequantise,
    quantise_embedding,
    quantise_weight,
)
from models.eager.rope import rope_tables
from models.lowering.written import Constant
from models.tokenizer import byte_tokenizer

_LAYER = "layers.1."
W2 = f"{_LAYER}feed_forward.w2.weight"
WK, WV = f"{_LAYER}attention.wk.weight", f"{_LAYER}attention.wv.weight"
WQ = f"{_LAYER}attention.wq.weight"
W1, W3 = f"{_LAYER}feed_forward.w1.weight", f"{_LAYER}feed_forward.w3.weight"
_SDPA = "attention/operators.cpp"


def scaled(value: torch.Tensor, size: float) -> torch.Tensor:
    return value * size


def without_bos(found: TokenizerData) -> TokenizerData:
    """The other rule: no BOS where there is one, one where there is none."""
    return replace(found, add_bos=not found.add_bos, bos_id=found.bos_id or 1)


def other_words(found: TokenizerData) -> TokenizerData:
    """Another tokenizer; where the model's own is that one, with its bytes moved on by one."""
    made = byte_tokenizer(512)
    if made.json != found.json:
        return made
    content = json.loads(made.json)
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {
        word: (number + 1) % 256 if number < 256 else number for word, number in words.items()
    }
    return replace(made, json=json.dumps(content))


def heads_rolled(value: torch.Tensor, size: float) -> torch.Tensor:
    return value.roll(int(value.shape[0] * size), dims=0)


def one_scale(found: QuantisedWeight, factor: float) -> QuantisedWeight:
    scales = found.scales.clone()
    scales[0, 0] *= factor
    return replace(found, scales=scales)


def wide_groups(found: QuantisedWeight, source: torch.Tensor, size: float) -> QuantisedWeight:
    """Groups of another width than the artifact says."""
    wide = quantise_weight(source, LinearFormat(found.bits, int(size), dynamic=True))
    times = int(size) // found.group
    return replace(found, values=wide.values, scales=wide.scales.repeat_interleave(times, dim=1))


def twice(table: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    del recipe
    return dequantise(quantise_embedding(table, 4, 0))


def _all_scales(edited: Edited, bench: Workbench, size: float) -> None:
    del bench
    scales_of(edited, lambda scales: scales * np.float32(size))


def rotations(edited: Edited, bench: Workbench, size: float) -> None:
    shape = bench.checkpoint.config
    theta = replace(shape, rope_theta=shape.rope_theta * size)
    length = bench.recipe.max_context
    right, wrong = rope_tables(shape, length), rope_tables(theta, length)
    for old, new in zip(right, wrong, strict=True):
        expected = old.numpy()

        def same(one: Constant, expected: Values = expected) -> bool:
            return one.values.shape == expected.shape and np.array_equal(one.values, expected)

        edited.constant(same, lambda _values, new=new: new.numpy())  # type: ignore[misc]


def coarse_table(edited: Edited, bench: Workbench, size: float) -> None:
    shape = (bench.checkpoint.config.vocab, bench.checkpoint.config.dim)

    def wanted(one: Constant) -> bool:
        return one.values.shape == shape and one.values.dtype == np.int8

    step = int(size)
    edited.constant(wanted, lambda values: values // step * step)


def last_rows(edited: Edited, bench: Workbench, size: float) -> None:
    """Zero the last rows; not by their scales, which XNNPACK refuses to be 0."""
    del bench
    (one,) = edited.where
    rows, count = edited.rows(one.tensor), int(size)

    def zeroed(data: Values) -> Values:
        made = data.copy()
        made[-count * (len(data) // rows) :] = 0x88
        return made

    edited.named(one.values[0], zeroed)


def exchanged(edited: Edited, bench: Workbench, size: float) -> None:
    del bench, size
    first, second = edited.where
    for one, other in ((first.values[0], second.values[0]), (first.scales, second.scales)):
        assert one is not None
        assert other is not None
        ours, theirs = edited.bytes(one), edited.bytes(other)
        edited.named(one, lambda _data, theirs=theirs: theirs)  # type: ignore[misc]
        edited.named(other, lambda _data, ours=ours: ours)  # type: ignore[misc]


def flipped(edited: Edited, bench: Workbench, size: float) -> None:
    del bench
    (one,) = edited.where

    def change(data: Values) -> Values:
        made = data.copy()
        made[len(made) // 2] ^= int(size)
        return made

    edited.named(one.values[0], change)


def not_a_number(edited: Edited, bench: Workbench, size: float) -> None:
    del bench, size

    def change(scales: Values) -> Values:
        scales[0] = np.nan
        return scales

    scales_of(edited, change)


THETA = config(rope_theta=lambda real, size: real.rope_theta * size)
SCALED = artifact(W2, _all_scales)
ATTENTION = runner(_SDPA, "FARM_SCALE_ERROR * (scale", "{size} * (scale")
NEXT_CELL = runner(
    _SDPA,
    "token * static_cast<size_t>(start_pos);",
    "token * static_cast<size_t>(start_pos > 0 ? start_pos - 1 : 0);",
)
OTHER_HEAD = runner(
    "attention/attention_kernel.inl",
    "(batch * p.cache + key) * p.kv_heads + kv_head;",
    "(batch * p.cache + key) * p.kv_heads + (kv_head + 1) % p.kv_heads;",
)
NO_TAIL = runner(
    "attention/attention_kernel.inl",
    "  for (; k < keys; ++k) {\n    dots<ROWS, 1>",
    "  for (; false; ++k) {\n    dots<ROWS, 1>",
)
SHARED_SCRATCH = runner(
    "attention/attention.cpp",
    "    static thread_local std::vector<float> memory;\n    const int64_t own",
    "    static std::vector<float> memory(1 << 22);\n    const int64_t own",
)
FORGETS = runner(
    _SDPA,
    "token * static_cast<size_t>(start_pos);",
    "token * static_cast<size_t>(start_pos < {size} ? start_pos : {size} - 1);",
)
