"""What one layer of a model gets and gives, recorded: eager PyTorch on the built-in text.

The program that replays it on a device is the engine's (`models.lowering.engine`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from farm.core.artifact import Recipe
from models.checkpoint import Checkpoint
from models.eager.layers import OnLayer, embed, run_layers
from models.eager.rotation import as_quantised
from models.texts import forced_tokens, read_text
from models.tokenizer import Tokenizer

#: Positions that are recorded.
_ROWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Inputs and outputs of one layer; row i is position i."""

    #: Counted from 0.
    layer: int
    #: Residual stream before the layer, as the unquantised model computes it, [rows, dim].
    inputs: torch.Tensor
    #: What the layer adds to it with the recipe's weights and activations, same shape.
    added: torch.Tensor


def replayed_layer(layers: int) -> int | None:
    """The middle layer; None where no layer is followed by another."""
    return (layers - 1) // 2 if layers > 1 else None


def record(checkpoint: Checkpoint, recipe: Recipe, layer: int, on_layer: OnLayer) -> Recording:
    """Run the model up to a layer, and the layer as the recipe has it.

    Raises:
        ExportError: A tensor is missing or damaged, or the built-in text is too short.
    """
    count = min(_ROWS, recipe.max_context, checkpoint.config.dim)
    tokens = forced_tokens(Tokenizer(checkpoint.tokenizer), read_text("builtin"), count)
    checkpoint = as_quantised(checkpoint, recipe)
    with torch.no_grad():
        x = embed(checkpoint, None, tokens)
        x = run_layers(checkpoint, None, x, range(layer), on_layer)
        after = run_layers(checkpoint, recipe, x, range(layer, layer + 1), on_layer)
    return Recording(layer, x[0].contiguous(), (after - x)[0].contiguous())
