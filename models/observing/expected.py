"""What PyTorch computes of each recorded value's inputs: every operator, or piece, on its own.

An error of one place doesn't go on to the next: what differs was computed wrongly just there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch

from farm.core.artifact import Recipe
from farm.core.diagnosis import Tap
from models.checkpoint import Checkpoint
from models.config import ModelConfig
from models.eager.decoder import attend
from models.eager.layers import embed
from models.eager.quantise import formats, round_heads
from models.eager.rope import rope_tables
from models.eager.rotation import as_quantised
from models.observing.programs import builder_of, layer_steps
from models.observing.steps import Rows, Step, Value, alone
from models.reference.logits import write_logits


def expected_model(
    checkpoint: Checkpoint, recipe: Recipe, tokens: Sequence[int], taps: Sequence[Tap], rows: Rows
) -> Rows:
    """Compute each piece of a model from what `rows` says it was given.

    Args:
        checkpoint: The model.
        recipe: How the artifact computes.
        tokens: Ids of the rows.
        taps: `model_taps`.
        rows: What the program of `observe_model` gave.

    Raises:
        ExportError: A tensor is missing or damaged.
    """
    checkpoint = as_quantised(checkpoint, recipe)
    config = checkpoint.config
    builder = builder_of(checkpoint, recipe, eager=True)
    given = [_tensor(part) for part in _split(taps, rows)]
    made: list[torch.Tensor] = []
    with torch.no_grad():
        made.append(embed(checkpoint, recipe, tokens))
        place, x = 2, given[1]
        for layer in range(config.layers):
            made += builder.pre(layer)(x, *_turns(config, layer, len(tokens)))
            q, k, v = (
                value.view(1, -1, *shape)
                for value, shape in zip(given[place:], _heads(config), strict=False)
            )
            made.append(_attended(config, recipe, layer, (q, k, v)))
            attended = given[place + 3].view(q.shape)
            after = builder.post(layer)(attended, x)
            if layer < config.layers - 1:
                made.append(after)
                x, place = given[place + 4], place + 5
        with tempfile.TemporaryDirectory(prefix="farm-logits-") as folder:
            file = Path(folder) / "logits.f32"
            write_logits(checkpoint, formats(recipe)("output"), after[0], file)
            logits = numpy.fromfile(file, "<f4").reshape(len(tokens), config.vocab)
    return numpy.concatenate([logits, *(_rows(one) for one in made)], axis=1)


def expected_layer(
    checkpoint: Checkpoint, recipe: Recipe, layer: int, inputs: Rows, rows: Rows
) -> Rows:
    """The same of the program of `observe_layer`, whose recorded inputs are `inputs`."""
    checkpoint = as_quantised(checkpoint, recipe)
    config = checkpoint.config
    with torch.no_grad():
        _, first, _, second = layer_steps(config, builder_of(checkpoint, recipe, eager=True), layer)
        cos, sin = _turns(config, layer, len(rows))
        query, _, _ = _heads(config)
        attended = Value("attended", "attention", query)
        values = [*_values(first), attended, *_values(second)]
        recorded = {"x": _tensor(inputs), "cos": cos, "sin": sin}
        start = 0
        for value in values:
            width = torch.Size(value.shape).numel()
            part = torch.from_numpy(rows[:, start : start + width].copy())
            recorded[value.name] = part.view(1, -1, *value.shape)
            start += width
        found = alone(first, recorded) | alone(second, recorded)
        heads = recorded["q"], recorded["k"], recorded["v"]
        found["attended"] = _attended(config, recipe, layer, heads)
    return numpy.concatenate([_rows(found[value.name]) for value in values], axis=1)


def _values(steps: list[Step]) -> list[Value]:
    return [value for step in steps for value in step.gives]


def _attended(
    config: ModelConfig, recipe: Recipe, layer: int, heads: Sequence[torch.Tensor]
) -> torch.Tensor:
    if recipe.quantised_kv_cache:
        heads = [round_heads(one) for one in heads]
    return attend(heads[0], heads[1], heads[2], config.window_of(layer), config.score_cap)


def _heads(config: ModelConfig) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    kv = (config.kv_heads, config.head_dim)
    return (config.heads, config.head_dim), kv, kv


def _turns(config: ModelConfig, layer: int, count: int) -> list[torch.Tensor]:
    tables = rope_tables(config, count, config.rope_kind(layer))
    return [table.view(1, -1, 1, config.head_dim) for table in tables]


def _split(taps: Sequence[Tap], rows: Rows) -> list[Rows]:
    ends = numpy.cumsum([one.width for one in taps])
    return numpy.split(rows, ends[:-1], axis=1)


def _tensor(rows: Rows) -> torch.Tensor:
    return torch.from_numpy(numpy.ascontiguousarray(rows)).unsqueeze(0)


def _rows(value: torch.Tensor) -> Rows:
    found: Rows = value.reshape(value.shape[1], -1).float().numpy()
    return found
