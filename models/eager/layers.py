"""Eager layers one after another, one of them in memory at a time: from tokens to hidden states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from farm.core.artifact import Recipe
from models.checkpoint import Checkpoint
from models.eager.decoder import attend
from models.eager.embedding import embed_eagerly
from models.eager.parts import PartBuilder
from models.eager.quantise import formats, round_heads
from models.eager.rope import rope_tables

#: Called before each layer: layer number from 1, and layers in all.
OnLayer = Callable[[int, int], None]


def embed(checkpoint: Checkpoint, recipe: Recipe | None, tokens: Sequence[int]) -> torch.Tensor:
    """Return the residual stream [1, S, dim] before the first layer."""
    table = checkpoint.tensor("tok_embeddings.weight")
    x = embed_eagerly(table, torch.tensor([list(tokens)]), recipe)
    return x * checkpoint.config.embedding_scale


def run_layers(
    checkpoint: Checkpoint,
    recipe: Recipe | None,
    x: torch.Tensor,
    layers: range,
    on_layer: OnLayer = lambda _done, _total: None,
) -> torch.Tensor:
    """Run some layers on the residual stream [1, S, dim] of a text that starts at position 0.

    Raises:
        ExportError: A tensor is missing or damaged.
    """
    config = checkpoint.config
    builder = PartBuilder(config, checkpoint.tensor, formats(recipe), eager=True)
    tables = {
        kind: [t.view(1, -1, 1, config.head_dim) for t in rope_tables(config, x.shape[1], kind)]
        for kind in {config.rope_kind(layer) for layer in layers}
    }
    for layer in layers:
        on_layer(layer + 1, config.layers)
        q, k, v = builder.pre(layer)(x, *tables[config.rope_kind(layer)])
        if recipe is not None and recipe.quantised_kv_cache:
            q, k, v = (round_heads(value) for value in (q, k, v))
        attended = attend(q, k, v, config.window_of(layer), config.score_cap)
        x = builder.post(layer)(attended, x)
    return x
