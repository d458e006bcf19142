"""Checkpoints of the hub whose weights were rounded before they were saved, with scales beside.

What they stand for is a product, so nothing is lost by reading them: FP8 with a scale for each
block, and compressed-tensors' whole 8-bit numbers. How a server would round activations is not
part of the weights. Other kinds (4 bits in packed integers, zero points) are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.core.errors import ExportError
from models.sources import hf_keys as keys
from models.sources.safetensors_files import DTYPES, Stored

if TYPE_CHECKING:
    import torch

_FP8, _INT8 = "F8_E4M3", "I8"
#: Formats of compressed-tensors that are read, and the dtype of their weights.
_COMPRESSED = {"int-quantized": _INT8, "float-quantized": _FP8, "naive-quantized": ""}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How weights and scales of a checkpoint belong together."""

    #: As config.json names it.
    method: str
    #: What is put to a weight's name for its scales.
    suffix: str
    #: Dtypes that rounded weights may have.
    dtypes: frozenset[str]
    #: Rows and columns that share a scale; 0 is all of them.
    block: tuple[int, int]

    def scale_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Shapes that the scales of a weight [rows, columns] may be stored in."""
        rows, columns = (
            1 if size == 0 else -(-whole // size)
            for whole, size in zip(shape, self.block, strict=True)
        )
        flat: tuple[tuple[int, ...], ...] = ((rows,),) if columns == 1 else ()
        return ((rows, columns), *flat, *(((),) if rows * columns == 1 else ()))


def read_scheme(data: Mapping[str, Any], path: Path) -> Scheme | None:
    """Read how the weights of a config.json were rounded; None where they weren't.

    Raises:
        ExportError: They were, in a way that isn't read; names the method and the key.
    """
    key = next((key for key in keys.QUANTISED if key in data), None)
    if key is None:
        return None
    value = data[key]
    method = value.get("quant_method") if isinstance(value, dict) else None
    if key != "quantization_config" or method not in ("fp8", "compressed-tensors"):
        raise ExportError(
            f"{path}: {key}: the weights were quantised before they were saved (quant_method"
            f" {method or 'unnamed'}); fp8 and compressed-tensors of 8 bits are read. Give the"
            " checkpoint that it was made from, or dequantise and save it"
        )
    place = _Place(path, f"{key}.")
    return _fp8(value, place) if method == "fp8" else _compressed(value, place)


@dataclass(frozen=True, slots=True)
class _Place:
    """A part of a file, for errors."""

    path: Path
    prefix: str

    def refused(self, key: str, value: Any, why: str) -> ExportError:
        return ExportError(
            f"{self.path}: {self.prefix}{key} is {json.dumps(value)[:80]}: {why}. Dequantise the"
            " weights and save them"
        )

    def only(self, found: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse keys and values that aren't these; an empty tuple allows any value."""
        for key, value in found.items():
            if key not in allowed:
                raise self.refused(key, value, "what it would change is unknown")
            if allowed[key] and value not in allowed[key]:
                raise self.refused(key, value, "weights of this kind aren't read")


def _fp8(value: Mapping[str, Any], place: _Place) -> Scheme:
    place.only(
        value,
        {
            "quant_method": (),
            "fmt": ("e4m3", None),
            "activation_scheme": ("dynamic", None),
            "weight_block_size": (),
            # Names of what was left as it is: the tensors say that themselves.
            "modules_to_not_convert": (),
            "ignored_layers": (),
            "dequantize": (True, False),
        },
    )
    block = value.get("weight_block_size")
    sizes = block if isinstance(block, list) and len(block) == 2 else [0, 0]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise place.refused("weight_block_size", block, "two sizes are expected")
    return Scheme("fp8", "_scale_inv", frozenset({_FP8}), (sizes[0], sizes[1]))


def _compressed(value: Mapping[str, Any], place: _Place) -> Scheme:
    place.only(
        value,
        {
            "quant_method": (),
            "format": tuple(_COMPRESSED),
            "config_groups": (),
            "ignore": (),
            "global_compression_ratio": (),
            "quantization_status": ("compressed", "frozen"),
            "version": (),
            "kv_cache_scheme": (None,),
            "sparsity_config": (None, {}),
            "transform_config": (None, {}),
        },
    )
    groups = value.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1:
        raise place.refused("config_groups", groups, "one group is expected")
    ((name, group),) = groups.items()
    inner = _Place(place.path, f"{place.prefix}config_groups.{name}.")
    if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
        raise inner.refused("weights", group, "an object is expected")
    allowed = {"weights": (), "input_activations": (), "output_activations": (None,)}
    inner.only(group, {**allowed, "targets": (["Linear"],), "format": (*_COMPRESSED, None)})
    weights = group["weights"]
    inner = _Place(place.path, f"{inner.prefix}weights.")
    inner.only(
        weights,
        {
            "num_bits": (8,),
            "type": ("int", "float"),
            "symmetric": (True,),
            "strategy": ("channel", "tensor", "group", "block"),
            "group_size": (),
            "block_structure": (),
            "dynamic": (False,),
            "actorder": (None,),
            "observer": (),
            "observer_kwargs": (),
            "scale_dtype": (),
            "zp_dtype": (),
        },
    )
    dtype = {"int": _INT8, "float": _FP8}.get(str(weights.get("type")))
    if dtype is None or weights.get("num_bits") != 8 or weights.get("symmetric") is not True:
        raise inner.refused("type", weights, "8 bits without zero points are expected")
    return Scheme("compressed-tensors", "_scale", frozenset({dtype}), _shared(weights, inner))


def _shared(weights: Mapping[str, Any], place: _Place) -> tuple[int, int]:
    """Rows and columns that share a scale."""
    strategy = weights.get("strategy")
    if strategy == "tensor":
        return 0, 0
    if strategy == "channel":
        return 1, 0
    key = "group_size" if strategy == "group" else "block_structure"
    size = weights.get(key)
    sizes: list[Any] = [1, size] if strategy == "group" else size if isinstance(size, list) else []
    if len(sizes) != 2 or not all(type(number) is int and number > 0 for number in sizes):
        raise place.refused(key, size, "it has to be positive")
    return sizes[0], sizes[1]


def check_scaled(weight: Stored, scale: Stored | None, scheme: Scheme | None) -> None:
    """Refuse a weight whose numbers mean nothing as they are stored, or scales that don't fit.

    Raises:
        ExportError: Names file, tensor and dtype.
    """
    if scale is None or scheme is None:
        if weight.dtype not in DTYPES:
            hint = f" (and {weight.name}{scheme.suffix} is missing)" if scheme else ""
            raise ExportError(
                f"{weight.path}: tensor {weight.name} is {weight.dtype}; only"
                f" {', '.join(sorted(DTYPES))} are read{hint}. Dequantise the weights and save them"
            )
        return
    if weight.dtype not in scheme.dtypes:
        raise ExportError(
            f"{scale.path}: tensor {scale.name} would not be used: {weight.name} is"
            f" {weight.dtype}, {scheme.method} has {', '.join(scheme.dtypes)}"
        )
    if scale.dtype not in DTYPES:
        raise ExportError(f"{scale.path}: tensor {scale.name} is {scale.dtype}, no plain number")
    shapes = scheme.scale_shapes(weight.shape) if len(weight.shape) == 2 else ()
    if scale.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes) or "no shape"
        raise ExportError(
            f"{scale.path}: tensor {scale.name} has shape {list(scale.shape)}; for"
            f" {weight.name} {list(weight.shape)} {wanted} is expected"
        )


def scaled(weight: torch.Tensor, scale: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """The float32 weight [rows, columns] that rounded numbers and scales stand for."""
    rows, columns = weight.shape
    found = scale.float()
    if found.dim() < 2:
        found = found.reshape(-1, 1)
    high, wide = scheme.block[0] or rows, scheme.block[1] or columns
    spread = found.repeat_interleave(high, 0)[:rows].repeat_interleave(wide, 1)[:, :columns]
    return weight.float() * spread
