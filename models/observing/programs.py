"""Programs that give what lies between an artifact's operators, in place of its logits alone.

The whole model is put together anew from the artifact's own delegates, byte for byte, and gives
what crosses their borders: its logits have to be the artifact's own. Inside a delegate only one
layer is looked at: lowered again with every value brought out, on the artifact's own weights.
Any runner takes both: their row of logits is as wide as all that they give.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy
import torch
from torch import nn

from farm.core.artifact import Recipe
from farm.core.diagnosis import Tap
from farm.core.errors import ExportError
from models.checkpoint import Checkpoint
from models.config import ModelConfig
from models.eager.decoder import Last
from models.eager.embedding import build_embedding, float_embedding
from models.eager.parts import PartBuilder, part_kind, synthetic_reader, tied_reader
from models.eager.quantise import formats, linear_format
from models.eager.rotation import as_quantised
from models.lowering.compose import Composed
from models.lowering.delegates import Constant, LoweredPart, lower_part, part_constants, sibling
from models.lowering.engine import attentions, write_program
from models.lowering.signatures import Example, part_example, signature_program
from models.lowering.written import Written
from models.observing.steps import (
    Rows,
    Step,
    Stepwise,
    after_attention,
    before_attention,
    head,
    names_of,
    tap,
)


def why_not(config: ModelConfig, recipe: Recipe, artifact: Written | None) -> str:
    """Say why an artifact's layers can't be told apart; empty where they can."""
    if recipe.engine != "farm" or recipe.backend != "xnnpack" or artifact is None:
        return (
            f"recipe {recipe.name}: only the farm engine's programs for XNNPACK have delegates"
            " that are known to begin and end at attention"
        )
    if len(artifact.delegates()) != config.layers + 1:
        return f"the artifact calls {len(artifact.delegates())} delegates, not {config.layers + 1}"
    return ""


def model_taps(config: ModelConfig, recipe: Recipe) -> tuple[Tap, ...]:
    """What a row of `observe_model` holds: logits, the embedding, then layer after layer."""
    rounds = _rounds(recipe)
    query, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    last = f"layer {config.layers - 1} after attention, norm and output"
    found = [
        Tap(None, last, config.vocab, rounds),
        Tap(None, "tok_embeddings", config.dim),
    ]
    stream = 1
    for layer in range(config.layers):
        found += [
            Tap(layer, "query", query, rounds),
            Tap(layer, "key", kv, rounds),
            Tap(layer, "value", kv, rounds),
            Tap(layer, "attention", query, recipe.quantised_kv_cache),
        ]
        if layer < config.layers - 1:
            found.append(Tap(layer, "after attention", config.dim, rounds, adds_to=stream))
            stream = len(found) - 1
    return tuple(found)


def _rounds(recipe: Recipe) -> bool:
    form = linear_format(recipe)
    return form is not None and form.dynamic


def observe_model(
    checkpoint: Checkpoint, recipe: Recipe, artifact: Written, program: Path
) -> tuple[Tap, ...]:
    """Write the program of a whole model, whose row is `model_taps`.

    Raises:
        ExportError: The artifact isn't put together as the farm engine does.
    """
    checkpoint = as_quantised(checkpoint, recipe)
    config = checkpoint.config
    if reason := why_not(config, recipe, artifact):
        raise ExportError(reason, recipe=recipe.name)
    taps = model_taps(config, recipe)
    with torch.no_grad():
        embedding = build_embedding(checkpoint.tensor("tok_embeddings.weight"), recipe)
        parts = _own_delegates(config, recipe, artifact)
        model = Observed(
            config,
            embedding=embedding,
            first=parts[0],
            between=parts[1:-1],
            last=parts[-1],
            attentions=attentions(config, recipe, config.layers),
            layers=range(config.layers),
            length=recipe.max_context,
        )
        _as_written(artifact, model, "cos_", "sin_")
        _as_written(artifact, embedding)
        _write(model, config, taps, recipe, checkpoint, program)
    return taps


def _write(
    model: nn.Module,
    config: ModelConfig,
    taps: Iterable[Tap],
    recipe: Recipe,
    checkpoint: Checkpoint,
    program: Path,
) -> None:
    wide = replace(config, vocab=sum(one.width for one in taps))
    write_program(model, wide, recipe, checkpoint.tokenizer, program)


def _own_delegates(config: ModelConfig, recipe: Recipe, artifact: Written) -> list[nn.Module]:
    """The artifact's delegates as modules, in the order of its calls."""

    @cache
    def signature(kind: str) -> torch.export.ExportedProgram:
        example = part_example(config, kind, recipe)  # type: ignore[arg-type]
        return signature_program(config, kind, example)  # type: ignore[arg-type]

    made: list[nn.Module] = []
    for index, program in enumerate(artifact.delegates()):
        names = dict.fromkeys(Constant.names_in(program))
        constants = {name: Constant(name, bytes(artifact.named[name])) for name in names}
        part = LoweredPart(program, {name: name for name in names}, (), 16, 0)
        made.append(sibling(part, constants, signature(part_kind(config, index))))
    return made


def _as_written(artifact: Written, module: nn.Module, *prefixes: str) -> None:
    """Give buffers and parameters of a module itself the numbers that the artifact has.

    Its constants have no names: of those of one shape the nearest is meant.

    Raises:
        ExportError: It has none of that shape.
    """
    for name, value in (*module.named_buffers(), *module.named_parameters()):
        if "." in name or not name.startswith(prefixes or ""):
            continue
        expected = value.numpy()
        found = [
            one.values
            for one in artifact.constants()
            if one.values.size == expected.size
            and one.values.shape[0] == expected.shape[0]
            and one.values.dtype.itemsize == expected.dtype.itemsize
        ]
        if not found:
            raise ExportError(f"the artifact has no constant of the shape of {name}")
        alike = [one.reshape(expected.shape).view(expected.dtype) for one in found]
        best = alike[0] if len(alike) == 1 else min(alike, key=lambda one: _far(one, expected))
        value.copy_(torch.from_numpy(best.copy()))


def _far(one: numpy.ndarray, other: numpy.ndarray) -> float:
    with numpy.errstate(over="ignore", invalid="ignore"):
        far = float(numpy.abs(one.astype("<f4") - other.astype("<f4")).max())
    return far if numpy.isfinite(far) else float("inf")


class Observed(Composed):
    """A decoder that gives a row of all that crosses the borders of its delegates."""

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """Run as `Composed.forward`; returns [1, all columns] of the last token."""
        position, turns, masks = self.begin(tokens, input_pos)
        x = self.embed(tokens)
        seen = [x]
        q, k, v = self.first(x, *turns[self.kinds[0]])
        for index, attention in enumerate(self.attentions):
            attended = attention(q, k, v, position, masks[index])
            seen += [q, k, v, attended]
            if index < len(self.between):
                x, q, k, v = self.between[index](attended, x, *turns[self.kinds[index + 1]])
                seen.append(x)
        assert self.last is not None, "an observed model is whole"
        logits: torch.Tensor = self.last(attended[:, -1:], x[:, -1:])[0]
        return torch.cat([logits[:, -1], *(_last_token(one) for one in seen)], dim=-1)


def _last_token(value: torch.Tensor) -> torch.Tensor:
    return value[:, -1:].reshape(1, -1)


class OneLayer(Composed):
    """One layer whose parts give every value of their steps."""

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """Run ids of recorded inputs; returns [1, all columns] of the last token."""
        position, turns, masks = self.begin(tokens, input_pos)
        x = self.embed(tokens)
        before = self.first(x, *turns[self.kinds[0]])
        v = before[self.place_of_v]
        attended = self.attentions[0](before[-2], before[-1], v, position, masks[0])
        assert self.last is not None, "the second half of the layer"
        after = self.last(attended, x)
        return torch.cat([_last_token(one) for one in (*before, attended, *after)], dim=-1)

    #: Where the value stands in what comes before attention; query and key come last.
    place_of_v = 0


def layer_steps(
    config: ModelConfig, builder: PartBuilder, layer: int
) -> tuple[nn.Module, list[Step], nn.Module, list[Step]]:
    """The two halves of a layer, each with its steps; the last layer's goes on to the logits."""
    pre, post = builder.pre(layer), builder.post(layer)
    second = after_attention(config, post)
    owner: nn.Module = post
    if layer == config.layers - 1:
        last = builder.build(config.layers)
        assert isinstance(last, Last), "the part after the last attention"
        owner, second = last, [*after_attention(config, last.post), *head(config, last)]
    return pre, before_attention(config, pre), owner, second


def layer_taps(
    config: ModelConfig, recipe: Recipe, layer: int, steps: Sequence[list[Step]]
) -> tuple[Tap, ...]:
    """What a row of `observe_layer` holds."""
    rounds = _rounds(recipe)
    before, after = ([v for step in half for v in step.gives] for half in steps)
    attention = Tap(layer, "attention", config.heads * config.head_dim, recipe.quantised_kv_cache)
    return (
        *(tap(layer, value, rounds=rounds) for value in before),
        attention,
        *(tap(layer, value, rounds=rounds) for value in after),
    )


def builder_of(checkpoint: Checkpoint, recipe: Recipe, *, eager: bool) -> PartBuilder:
    """What builds the parts of a model in its recipe."""
    read = tied_reader(checkpoint.config, checkpoint.tensor)
    return PartBuilder(checkpoint.config, read, formats(recipe), eager=eager)


def observe_layer(
    checkpoint: Checkpoint,
    recipe: Recipe,
    artifact: Written,
    layer: int,
    inputs: Rows,
    program: Path,
) -> tuple[Tap, ...]:
    """Write the program of one layer, which ids 0, 1, 2, ... feed recorded inputs [rows, dim].

    Raises:
        ExportError: The artifact lacks a constant of that layer.
    """
    checkpoint = as_quantised(checkpoint, recipe)
    config = checkpoint.config
    with torch.no_grad():
        real = builder_of(checkpoint, recipe, eager=False)
        pre, first, post, second = layer_steps(config, real, layer)
        taps = layer_taps(config, recipe, layer, (first, second))
        stand_in = replace(real, read=synthetic_reader(config), unquantised=[])
        s_pre, s_first, s_post, s_second = layer_steps(config, stand_in, layer)
        between = part_example(config, "between", recipe)
        shapes = None if between.dynamic_shapes is None else between.dynamic_shapes[:2]
        halves = [
            _lowered(
                Stepwise(s_pre, s_first, ("x", "cos", "sin")),
                Stepwise(pre, first, ("x", "cos", "sin")),
                part_example(config, "first", recipe),
                artifact,
            ),
            _lowered(
                Stepwise(s_post, s_second, ("attended", "x")),
                Stepwise(post, second, ("attended", "x")),
                Example(between.inputs[:2], shapes),
                artifact,
            ),
        ]
        one = replace(config, layers=1, embedding_scale=1.0)
        model = OneLayer(
            one,
            embedding=float_embedding(torch.from_numpy(inputs.copy())),
            first=halves[0],
            between=[],
            last=halves[1],
            attentions=attentions(config, recipe, 1),
            layers=range(layer, layer + 1),
            length=recipe.max_context,
        )
        model.place_of_v = names_of(first).index("v")
        _as_written(artifact, model, "cos_", "sin_")
        _write(model, one, taps, recipe, checkpoint, program)
    return taps


def _lowered(
    stand_in: nn.Module, real: nn.Module, example: Example, artifact: Written
) -> nn.Module:
    """Lower a half with every value brought out, and give it the artifact's own bytes."""
    # `Stepwise.forward` takes any number of inputs: they are one argument.
    shapes = None if example.dynamic_shapes is None else (example.dynamic_shapes,)
    part = lower_part(stand_in, example.inputs, shapes)
    constants = {}
    for name, constant in part_constants(real).items():
        if constant.key not in artifact.named:
            raise ExportError(f"the artifact has no constant for {name}: it was made otherwise")
        constants[name] = Constant(constant.key, bytes(artifact.named[constant.key]))
    signature = torch.export.export(stand_in, example.inputs, dynamic_shapes=shapes, strict=False)
    delegate: nn.Module = sibling(part, constants, signature)
    return delegate
