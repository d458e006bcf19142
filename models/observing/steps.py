"""A layer as a list of operators: one list for the program and for PyTorch alike.

The program runs each on what the one before computed, PyTorch each on what the program recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy
import numpy.typing as npt
import torch
from torch import nn

from farm.core.diagnosis import Tap
from models.config import ModelConfig
from models.eager.decoder import Last, PostAttention, PreAttention, finish_logits

#: float32 [rows, columns]; row i is position i.
Rows: TypeAlias = npt.NDArray[numpy.float32]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor between operators."""

    name: str
    #: Who computes it.
    operator: str
    #: Its shape for each token.
    shape: tuple[int, ...]
    #: Its operator rounds activations where the recipe does.
    linear: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One operator, or several that share their input."""

    takes: tuple[str, ...]
    gives: tuple[Value, ...]
    run: Callable[..., tuple[torch.Tensor, ...]]


def tap(layer: int | None, value: Value, *, rounds: bool) -> Tap:
    """Describe a value's columns."""
    return Tap(layer, value.operator, torch.Size(value.shape).numel(), rounds and value.linear)


def _one(takes: tuple[str, ...], value: Value, run: Callable[..., torch.Tensor]) -> Step:
    return Step(takes, (value,), lambda *given: (run(*given),))


def before_attention(config: ModelConfig, pre: PreAttention) -> list[Step]:
    """From `x`, `cos` and `sin` to `q`, `k` and `v`."""
    query, kv = (config.heads, config.head_dim), (config.kv_heads, config.head_dim)
    flat_q, flat_kv = query[0] * query[1], kv[0] * kv[1]
    steps, source = [], "x"
    if config.pre_norm:
        steps.append(_one(("x",), Value("normed", "attention_norm", (config.dim,)), pre.norm))
        source = "normed"
    projected = (
        Value("q0", "attention.wq", (flat_q,), linear=True),
        Value("k0", "attention.wk", (flat_kv,), linear=True),
        Value("v", "attention.wv", kv, linear=True),
    )

    def project(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v = pre.qkv(x)
        return q, k, v.view(pre.shape_kv)

    steps.append(Step((source,), projected, project))
    names = {"q": "q0", "k": "k0"}
    if config.qk_norm:
        for name, shape in (("q", query), ("k", kv)):
            value = Value(f"{name}1", f"attention.{name}_norm", shape)
            steps.append(_one((f"{name}0",), value, _head_norm(pre, name)))
            names[name] = f"{name}1"

    def turn_query(q: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        turned = pre._rotate(q.view(pre.shape_q), cos, sin)
        return turned * pre.query_scale if pre.scaled else turned

    def turn_key(k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return pre._rotate(k.view(pre.shape_kv), cos, sin)

    steps.append(
        _one((names["q"], "cos", "sin"), Value("q", "rope of the query", query), turn_query)
    )
    steps.append(_one((names["k"], "cos", "sin"), Value("k", "rope of the key", kv), turn_key))
    return steps


def _head_norm(pre: PreAttention, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    norm, shape = (pre.q_norm, pre.shape_q) if name == "q" else (pre.k_norm, pre.shape_kv)

    def run(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = norm(x.view(shape)) if pre.norm_heads else norm(x).view(shape)
        return result

    return run


def after_attention(config: ModelConfig, post: PostAttention) -> list[Step]:
    """From `attended` and `x` to `after`, the residual stream after the layer."""
    dim, hidden = (config.dim,), (config.hidden,)
    wo = Value("projected", "attention.wo", dim, linear=True)
    steps = [_one(("attended",), wo, lambda a: post.out(a.view(1, -1, post.width))[0])]
    added, read, fed = "projected", "middle", "fed"
    if config.post_norm:
        value = Value("out_normed", "attention_post_norm", dim)
        steps.append(_one((added,), value, post.out_norm))
        added = "out_normed"
    middle = Value("middle", "sum after attention", dim)
    steps.append(_one(("x", added), middle, lambda x, more: x + post._scaled(more)))
    if config.pre_norm:
        steps.append(_one(("middle",), Value("ffn_normed", "ffn_norm", dim), post.norm))
        read = "ffn_normed"
    gates = (
        Value("gate", "feed_forward.w1", hidden, linear=True),
        Value("up", "feed_forward.w3", hidden, linear=True),
    )
    steps.append(Step((read,), gates, lambda x: tuple(post.gate_up(x))))
    acted = Value("acted", "activation", hidden)
    steps.append(_one(("gate", "up"), acted, lambda gate, up: post.activation(gate) * up))
    w2 = Value("fed", "feed_forward.w2", dim, linear=True)
    steps.append(_one(("acted",), w2, lambda x: post.down(x)[0]))
    if config.post_norm:
        value = Value("fed_normed", "ffn_post_norm", dim)
        steps.append(_one(("fed",), value, post.down_norm))
        fed = "fed_normed"
    after = Value("after", "sum after feed_forward", dim)
    steps.append(_one(("middle", fed), after, lambda x, more: x + post._scaled(more)))
    return steps


def head(config: ModelConfig, last: Last) -> list[Step]:
    """From `after` to `logits`."""
    logits = Value("logits", "output", (config.vocab,), linear=True)
    return [
        _one(("after",), Value("final", "norm", (config.dim,)), last.norm),
        _one(("final",), logits, lambda x: finish_logits(config, last.output(x)[0])),
    ]


class Stepwise(nn.Module):
    """Steps as a module that gives every value of theirs."""

    def __init__(self, owner: nn.Module, steps: list[Step], inputs: tuple[str, ...]) -> None:
        """Take over.

        Args:
            owner: Holds the weights that the steps read.
            steps: What it computes.
            inputs: Names of what `forward` is given.
        """
        super().__init__()
        self.owner = owner
        self.steps = steps
        self.inputs = inputs

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return all values in order."""
        values = dict(zip(self.inputs, given, strict=True))
        for step in self.steps:
            found = step.run(*(values[name] for name in step.takes))
            values |= {value.name: one for value, one in zip(step.gives, found, strict=True)}
        return tuple(values[name] for name in names_of(self.steps))


def names_of(steps: Iterable[Step]) -> list[str]:
    """Names of the values, in order."""
    return [value.name for step in steps for value in step.gives]


def alone(steps: Iterable[Step], recorded: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run each step on recorded inputs, whatever the step before it would give."""
    found: dict[str, torch.Tensor] = {}
    for step in steps:
        given = step.run(*(recorded[name] for name in step.takes))
        found |= {value.name: one for value, one in zip(step.gives, given, strict=True)}
    return found
