"""Eager logits of a teacher-forced text, one part of the model in memory at a time.

`eager_fp32` is the model as its authors meant it; `eager_quantised` computes with the weights
and the 8-bit activations that the recipe's artifact has. Both start at position 0 and see the
whole text at once: every row equals what one token at a time would give, up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
import torch.nn.functional as functional

from farm.core.artifact import Recipe
from farm.core.errors import ExportError
from models.checkpoint import Checkpoint
from models.eager.decoder import RmsNorm, finish_logits
from models.eager.layers import OnLayer, embed, run_layers
from models.eager.parts import tied_reader
from models.eager.quantise import (
    LinearFormat,
    dequantise,
    formats,
    quantise_weight,
    round_activation,
)
from models.eager.rotation import as_quantised

#: Rows of the output weights in float32 at a time: 8192 x 4096 is 128 MiB.
_OUTPUT_ROWS = 8192


def eager_logits(
    checkpoint: Checkpoint,
    recipe: Recipe | None,
    tokens: Sequence[int],
    target: Path,
    on_layer: OnLayer = lambda _done, _total: None,
) -> tuple[int, int]:
    """Write logits of every position to `target` as raw little-endian float32.

    Args:
        checkpoint: The model.
        recipe: Whose quantisation to imitate; None computes in float32.
        tokens: Text from position 0.
        target: File of [len(tokens), vocab] numbers.
        on_layer: Progress.

    Returns:
        Rows and columns of the file.

    Raises:
        ExportError: A tensor is missing or damaged, or the text is too long for the model.
    """
    config = checkpoint.config
    if not 0 < len(tokens) <= config.max_context:
        raise ExportError(
            f"a reference of {len(tokens)} tokens: the model takes 1 to {config.max_context}"
        )
    if max(tokens) >= config.vocab or min(tokens) < 0:
        raise ExportError(
            f"token id {max(tokens)} is outside the model's vocabulary of {config.vocab}: the"
            " tokenizer belongs to another model"
        )
    with torch.no_grad():
        form = formats(recipe)("output")
        if recipe is not None:
            checkpoint = as_quantised(checkpoint, recipe)
        x = embed(checkpoint, recipe, tokens)
        x = run_layers(checkpoint, recipe, x, range(config.layers), on_layer)
        write_logits(checkpoint, form, x[0], target)
    return len(tokens), config.vocab


def write_logits(
    checkpoint: Checkpoint, form: LinearFormat | None, x: torch.Tensor, target: Path
) -> None:
    """Write the logits of a residual stream [tokens, dim] after the last layer, row by row.

    Raises:
        ExportError: The file can't be written.
    """
    config = checkpoint.config
    x = RmsNorm(checkpoint.tensor("norm.weight"), config.norm_eps)(x.unsqueeze(0))[0]
    if form is not None and not form.fits(config.dim):
        form = None
    if form is not None and form.dynamic:
        x = round_activation(x)
    weights = tied_reader(config, checkpoint.tensor)("output.weight")
    try:
        with target.open("wb") as file:
            # Reserved beforehand: a full disk is an error here and a bus error in the mapping.
            os.posix_fallocate(file.fileno(), 0, x.shape[0] * config.vocab * 4)
        logits = numpy.memmap(target, "<f4", "r+", shape=(x.shape[0], config.vocab))
    except OSError as error:
        raise ExportError(f"can't write {target}: {error.strerror}") from error
    for start in range(0, config.vocab, _OUTPUT_ROWS):
        rows = weights[start : start + _OUTPUT_ROWS]
        # Rows are rounded one by one, so a slice is rounded as the whole would be.
        dense = rows.float() if form is None else dequantise(quantise_weight(rows, form))
        finished = finish_logits(config, functional.linear(x, dense))
        logits[:, start : start + _OUTPUT_ROWS] = finished.numpy()
    logits.flush()
