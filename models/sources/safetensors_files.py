"""Safetensors files of a model folder: which ones, what they hold, and equal bytes. No torch."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.core.errors import ExportError
from models.sources.config_values import read_json
from models.sources.files import refuse_lfs_pointer

if TYPE_CHECKING:
    import torch

#: Largest header that a safetensors file may have, as the format says.
_MAX_HEADER = 100_000_000
_BLOCK = 8 * 1024 * 1024

#: Bytes of dtypes that weights may have; integers and 8-bit floats mean nothing without their
#: scales.
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
DTYPES = frozenset(_SIZES)


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    #: First byte and the one after the last, in the file.
    start: int
    end: int


def weight_files(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Weight files of a model folder, and a note where two places disagree.

    Raises:
        ExportError: There are none, or the index names one that isn't there.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    for path in (single, index):
        if path.is_symlink() and not path.exists():
            raise ExportError(
                f"{path}: a link to {path.readlink()}, which isn't there; fetch the file again"
            )
    if single.is_file():
        if index.is_file() and set(_shards(index)) != {single.name}:
            note = f"{folder}: model.safetensors lies beside an index of other files; it is taken"
            return [single], (note + ", as transformers does",)
        return [single], ()
    if index.is_file():
        names = _shards(index)
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise ExportError(f"{folder}: {', '.join(missing) or 'every shard'} is missing")
        return [folder / name for name in names], ()
    others = sorted([*folder.glob("*.bin"), *folder.glob("*.gguf"), *folder.glob("*.pth")])
    hint = f" ({others[0].name} is there: convert it, or use gguf: or meta:)" if others else ""
    raise ExportError(f"{folder}: no model.safetensors; only safetensors are read{hint}")


def _shards(index: Path) -> list[str]:
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise ExportError(f"{index}: weight_map is no object of file names; fetch it again")
    return sorted(set(found.values()))


def read_header(path: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file, checked against its size.

    Raises:
        ExportError: The file is cut short or isn't one.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            raw = file.read(8)
            refuse_lfs_pointer(raw + file.read(56), path)
            file.seek(8)
            length = struct.unpack("<Q", raw)[0] if len(raw) == 8 else _MAX_HEADER
            header = json.loads(file.read(length)) if length < min(size, _MAX_HEADER) else None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: not readable as safetensors ({error})") from error
    if not isinstance(header, dict):
        raise ExportError(f"{path}: not a safetensors file, or cut short; fetch it again")
    header.pop("__metadata__", None)
    tensors = {name: _stored(path, name, info, 8 + length) for name, info in header.items()}
    end = max((tensor.end for tensor in tensors.values()), default=0)
    if end > size:
        raise ExportError(f"{path}: cut short, {size} of {end} bytes; fetch it again")
    return tensors


def _stored(path: Path, name: str, info: Any, base: int) -> Stored:
    try:
        start, end = info["data_offsets"]
        shape = tuple(int(size) for size in info["shape"])
        stored = Stored(path, name, str(info["dtype"]), shape, base + int(start), base + int(end))
    except (TypeError, KeyError, ValueError) as error:
        raise ExportError(f"{path}: tensor {name}: damaged header ({error!r})") from error
    size = _SIZES.get(stored.dtype)
    if size is not None and math.prod(shape) * size != stored.end - stored.start:
        raise ExportError(
            f"{path}: tensor {name}: damaged header, {list(shape)} of {stored.dtype} in"
            f" {stored.end - stored.start} bytes; fetch it again"
        )
    return stored


def load_tensor(info: Stored, rows: tuple[int, int] | None = None) -> torch.Tensor:
    """Map a tensor, or some rows of it, in the dtype it is stored in.

    Raises:
        ExportError: The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(info.path, framework="pt") as opened:
            found: torch.Tensor = (
                opened.get_tensor(info.name)
                if rows is None
                else opened.get_slice(info.name)[slice(*rows)]
            )
    except (SafetensorError, OSError) as error:
        raise ExportError(f"{info.path}: damaged ({error}); fetch it again") from error
    return found


def same_bytes(first: Stored, second: Stored) -> bool:
    """Whether two tensors are equal in dtype, shape and every byte.

    Raises:
        ExportError: A file can't be read.
    """
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    try:
        with first.path.open("rb") as one, second.path.open("rb") as two:
            one.seek(first.start)
            two.seek(second.start)
            left = first.end - first.start
            while left > 0:
                size = min(left, _BLOCK)
                if one.read(size) != two.read(size):
                    return False
                left -= size
    except OSError as error:
        raise ExportError(f"can't read {error.filename}: {error.strerror}") from error
    return True
