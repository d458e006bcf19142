"""Does a set of tensors make the model that a config describes? Checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from farm.core.errors import ExportError
from models.checkpoint import TokenizerData, layer_tensors, outer_tensors
from models.config import ModelConfig
from models.tokenizer import last_token

#: Why a tensor may be there that the graph doesn't have; the first pattern that is found counts.
_REASONS = (
    (
        r"scale|qweight|qzeros|g_idx|absmax|quant_|zero_point|weight_packed|weight_shape|\.SCB$"
        r"|\.biases$",
        "it belongs to weights that were quantised before they were saved; give the checkpoint that"
        " they were made from, or dequantise and save it",
    ),
    (
        r"lora_|base_layer|base_model\.|modules_to_save",
        "it belongs to an adapter (LoRA); give the base as `hf: FOLDER` and the adapter as"
        " `adapter: FOLDER`, or merge them (merge_and_unload of peft) and save that",
    ),
    (r"\.bias$|_bias$", "it is a bias that the model of this config doesn't have"),
    (r"expert|router|\.gate\.", "it belongs to a mixture of experts, which isn't supported"),
)


def wanted_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a model, by canonical name."""
    wanted = outer_tensors(config)
    for layer in range(config.layers):
        wanted |= layer_tensors(config, layer)
    return wanted


def refuse_unknown(names: Iterable[str], where: object) -> None:
    """Refuse tensors that no part of the graph reads: leaving them out may change the logits.

    Raises:
        ExportError: There are some; names `where` and the first, and says what it may be.
    """
    found = sorted(names)
    if not found:
        return
    reasons = (text for pattern, text in _REASONS if re.search(pattern, found[0]))
    reason = next(reasons, "the model that its config describes has none of that name")
    more = f" (and {len(found) - 1} more)" if found[1:] else ""
    raise ExportError(f"{where}: tensor {found[0]}{more} would not be used: {reason}")


def check_tensors(
    config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], where: object
) -> None:
    """Compare canonical names and shapes with what the config needs.

    Raises:
        ExportError: A tensor is missing or of another shape; names `where` and the tensor.
    """
    for name, shape in wanted_tensors(config).items():
        found = shapes.get(name)
        if found is None:
            raise ExportError(f"{where}: tensor {name} is missing; the download is incomplete")
        if found != shape:
            raise ExportError(
                f"{where}: tensor {name} has shape {list(found)}, its config says {list(shape)}"
            )


def check_vocabulary(tokenizer: TokenizerData, rows: int, where: object) -> None:
    """Refuse a tokenizer with ids that the embedding, of so many rows, has no row for.

    Raises:
        ExportError: Names the token.
    """
    try:
        text, last = last_token(tokenizer.json)
    except ExportError as error:
        raise ExportError(f"{where}: {error.message}") from error
    if last >= rows:
        raise ExportError(
            f"{where}: the tokenizer's token {text!r} has id {last}, the embedding has"
            f" {rows} rows: it belongs to another model, or tokens were added without"
            " resizing the embedding"
        )
    beyond = [stop for stop in tokenizer.stop_ids if stop >= rows]
    if beyond:
        raise ExportError(
            f"{where}: eos_token_id {beyond[0]} is beyond the embedding's {rows} rows"
        )
