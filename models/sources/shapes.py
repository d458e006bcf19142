"""Does a set of tensors make the model that a config describes? Checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping

from farm.core.errors import ExportError
from models.checkpoint import layer_tensors, outer_tensors
from models.config import ModelConfig


def check_tensors(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compare canonical names and shapes with what the config needs.

    Raises:
        ExportError: A tensor is missing or of another shape; names `where` and the tensor.
    """
    wanted = outer_tensors(config)
    for layer in range(config.layers):
        wanted |= layer_tensors(config, layer)
    for name, shape in wanted.items():
        found = shapes.get(name)
        if found is None:
            raise ExportError(f"{where}: tensor {name} is missing; the download is incomplete")
        if found != shape:
            raise ExportError(
                f"{where}: tensor {name} has shape {list(found)}, its config says {list(shape)}"
            )
