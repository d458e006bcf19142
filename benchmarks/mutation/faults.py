"""The table of faults: what is wrong, where it arises, how large it is, and who has to say so.

A new fault is one more row. `expected` is the gate that has to fail, and words of its text that
name the stage; other gates may fail too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.mutation.edits import (
    ATTENTION,
    FORGETS,
    NEXT_CELL,
    NO_TAIL,
    OTHER_HEAD,
    SCALED,
    SHARED_SCRATCH,
    THETA,
    W1,
    W2,
    W3,
    WK,
    WQ,
    coarse_table,
    exchanged,
    flipped,
    heads_rolled,
    last_rows,
    not_a_number,
    one_scale,
    other_words,
    rotations,
    scaled,
    twice,
    wide_groups,
    without_bos,
)
from benchmarks.mutation.inject import (
    Injector,
    artifact,
    config,
    device,
    embedding,
    quantiser,
    swapped,
    tensor,
    tokenizer,
)
from models.config import RopeScaling

Where = Literal["loader", "quantiser", "lowering", "runner", "device"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row."""

    name: str
    #: Faults of one class differ in size only; the smallest that is caught is reported.
    kind: str
    where: Where
    size: float
    inject: Injector
    #: Gate that has to fail, and what its text has to hold.
    gate: str
    stage: str
    #: Also in the cheap share that every `make test` runs, on the tiny model.
    cheap: bool = False
    #: The smallest sizes of a class may pass: they say where its limit is.
    must: bool = True


_SOURCE, _ARTIFACT = "-> eager_fp32", "source -> artifact"
_KERNELS, _LAYERS = "canary: a small", "canary: one layer"
_HOST, _DEVICE = "eager_quantised -> host_pte", "host_pte -> device_pte"

FAULTS: tuple[Fault, ...] = (
    *(
        Fault(
            f"rotary base x{size:g}",
            "rotary base, loader",
            "loader",
            size,
            THETA,
            "max_abs_error",
            _SOURCE,
            cheap=size == 0.1,
            must=size != 1.001,
        )
        for size in (0.1, 1.01, 1.001)
    ),
    Fault(
        "rotary pairing swapped",
        "rotary pairing",
        "loader",
        1,
        config(
            rope_pairing=lambda real, _size: (
                "half" if real.rope_pairing == "interleaved" else "interleaved"
            )
        ),
        "max_abs_error",
        _SOURCE,
        cheap=True,
    ),
    *(
        Fault(
            name,
            "norm epsilon",
            "loader",
            size,
            config(norm_eps=lambda real, size: real.norm_eps * size),
            "max_abs_error",
            _SOURCE,
            must=size > 1,  # the tiny model's norms are so large that less changes nothing
        )
        for name, size in (("norm epsilon 1e-4 for 1e-5", 10), ("norm epsilon 1e-6 for 1e-5", 0.1))
    ),
    Fault(
        "rotary scaling that the model doesn't have",
        "rotary scaling",
        "loader",
        8,
        config(rope_scaling=lambda _real, size: RopeScaling(size, original_context=64)),
        "max_abs_error",
        _SOURCE,
    ),
    Fault("BOS rule turned", "BOS", "loader", 1, tokenizer(without_bos), "token_ids", "tokens"),
    Fault(
        "wrong tokenizer", "tokenizer", "loader", 1, tokenizer(other_words), "token_ids", "tokens"
    ),
    Fault(
        "two weight files of one shape swapped",
        "swapped weights, loader",
        "loader",
        1,
        swapped(W1, W3),
        "max_abs_error",
        _SOURCE,
        cheap=True,
    ),
    Fault(
        "keys given to the wrong heads",
        "GQA mapping, loader",
        "loader",
        0.5,
        tensor(WK, heads_rolled),
        "max_abs_error",
        _SOURCE,
    ),
    *(
        Fault(
            f"a weight's own scale dropped: x{size:g}",
            "dropped scale, loader",
            "loader",
            size,
            tensor(W2, scaled),
            "max_abs_error",
            _SOURCE,
            must=size > 1.01,
        )
        for size in (4.0, 1.05, 1.01)
    ),
    Fault(
        "w2 of one layer zeroed",
        "zeroed weight",
        "quantiser",
        0,
        quantiser(W2, lambda found, _source, size: replace(found, scales=found.scales * size)),
        "weights",
        _ARTIFACT,
        cheap=True,
    ),
    Fault(
        "groups of 64 for 32",
        "group size",
        "quantiser",
        64,
        quantiser(WQ, wide_groups),
        "weights",
        _ARTIFACT,
    ),
    Fault(
        "embedding rounded twice",
        "embedding",
        "quantiser",
        2,
        embedding(twice),
        "weights",
        _ARTIFACT,
        cheap=True,
    ),
    *(
        Fault(
            "one scale zeroed" if size == 0 else f"one scale off by {size - 1:.0%}",
            "one scale",
            "quantiser",
            size,
            quantiser(W2, lambda found, _source, size: one_scale(found, size)),
            "weights",
            _ARTIFACT,
            cheap=size in (0, 1.01),
        )
        for size in (0, 1.2, 1.05, 1.01)
    ),
    *(
        Fault(
            f"w2 of one layer x{size:g}",
            "weight scale, lowering",
            "lowering",
            size,
            SCALED,
            "weights",
            _ARTIFACT,
            cheap=size == 0.8,
        )
        for size in (0.8, 1.01)
    ),
    *(
        Fault(
            f"rotary base x{size:g} in the artifact",
            "rotary base, lowering",
            "lowering",
            size,
            artifact("", rotations),
            "weights",
            _ARTIFACT,
        )
        for size in (1.01, 1.001)
    ),
    Fault(
        "embedding of 4 for 8 bits",
        "embedding width",
        "lowering",
        16,
        artifact("", coarse_table),
        "weights",
        _ARTIFACT,
    ),
    Fault(
        "last 16 rows of the vocabulary zeroed",
        "vocabulary",
        "lowering",
        16,
        artifact("output.weight", last_rows),
        "weights",
        _ARTIFACT,
    ),
    Fault(
        "two constants of one shape swapped",
        "swapped weights, lowering",
        "lowering",
        1,
        artifact(f"{W1} {W3}", exchanged),
        "weights",
        _ARTIFACT,
    ),
    *(
        Fault(
            f"attention scores x{size:g}",
            "attention scale",
            "runner",
            size,
            ATTENTION,
            "canary",
            _KERNELS,
            cheap=size == 1.01,
            must=size > 1.002,
        )
        for size in (1.05, 1.02, 1.01, 1.002)
    ),
    Fault(
        "sign of attention scores", "attention sign", "runner", -1.0, ATTENTION, "canary", _KERNELS
    ),
    Fault(
        "cache position off by one", "cache position", "runner", 1, NEXT_CELL, "canary", _KERNELS
    ),
    Fault(
        "kernel reads another head's keys",
        "GQA mapping, kernel",
        "runner",
        1,
        OTHER_HEAD,
        "canary",
        _KERNELS,
    ),
    Fault(
        "kernel skips the tail of the keys", "vector tail", "runner", 1, NO_TAIL, "canary", _KERNELS
    ),
    Fault("threads share a scratch", "threads", "runner", 1, SHARED_SCRATCH, "canary", _KERNELS),
    Fault("context truncated at 32 tokens", "context", "runner", 32, FORGETS, "canary", _KERNELS),
    Fault(
        "flipped byte of a weight",
        "flipped byte",
        "device",
        8,
        device(artifact(W2, flipped)),
        "bit_equal",
        _DEVICE,
        cheap=True,
    ),
    Fault(
        "stale artifact: its embedding has 4 bits",
        "stale artifact",
        "device",
        16,
        device(artifact("", coarse_table)),
        "bit_equal",
        _DEVICE,
    ),
    Fault(
        "NaN in one layer",
        "NaN",
        "device",
        1,
        device(artifact(W2, not_a_number)),
        "finite",
        "device_pte",
    ),
    Fault(
        "another CPU: w2 of one layer x0.8",
        "weight scale, another CPU",
        "device",
        0.8,
        device(SCALED, other_cpu=True),
        "kl_mean",
        _DEVICE,
    ),
    Fault(
        "another CPU: last 16 rows of the vocabulary zeroed",
        "vocabulary, another CPU",
        "device",
        16,
        device(artifact("output.weight", last_rows), other_cpu=True),
        "vocabulary",
        _DEVICE,
    ),
    *(
        Fault(
            f"another CPU: attention scores x{size:g}",
            "attention scale, another CPU",
            "device",
            size,
            device(ATTENTION, other_cpu=True),
            "canary",
            _KERNELS,
            must=size > 1.002,
        )
        for size in (1.02, 1.002)
    ),
    Fault(
        "another CPU: rotary base x1.01",
        "rotary base, another CPU",
        "device",
        1.01,
        device(artifact("", rotations), other_cpu=True),
        "direction",
        _DEVICE,
        must=False,
    ),
)
