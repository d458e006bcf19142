"""Checkpoints of Meta's format: params.json and consolidated.*.pth, one shard or several."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.core.artifact import ModelSource
from farm.core.errors import ExportError
from models.checkpoint import SourceFile, TokenizerData, layer_tensors, outer_tensors
from models.config import ModelConfig, RopeScaling, check_config
from models.sources.files import source_file
from models.sources.shapes import check_tensors
from models.sources.tokenizer_files import RULE_NAMES, find_tokenizer, read_tokenizer_file
from models.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


class MetaCheckpoint:
    """A folder in Meta's format; tensors are mapped, not loaded."""

    def __init__(self, folder: Path, tokenizer: Path, cache: Path) -> None:
        self.folder = folder
        self._shards = sorted(folder.glob("consolidated.*.pth")) or sorted(folder.glob("*.pth"))
        if not self._shards:
            raise ExportError(f"{folder}: no consolidated.00.pth; not a folder in Meta's format")
        self.tokenizer: TokenizerData = read_tokenizer_file(tokenizer)
        shapes = [read_shapes(path) for path in self._shards]
        vocab = Tokenizer(self.tokenizer).vocab_size
        self.config = read_params(folder / "params.json", shapes[0], len(shapes), vocab)
        self._wanted = outer_tensors(self.config)
        for layer in range(self.config.layers):
            self._wanted |= layer_tensors(self.config, layer)
        self._check(shapes)
        rules = [tokenizer.parent / name for name in RULE_NAMES]
        self._used = [*self._shards, tokenizer, *(path for path in rules if path.is_file())]
        self._cache = cache
        self._loaded: list[dict[str, torch.Tensor]] | None = None

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """See Checkpoint."""
        return tuple(source_file(path, self._cache) for path in self._used)

    def _check(self, shapes: list[dict[str, Shape]]) -> None:
        whole = {}
        for name, wanted in self._wanted.items():
            parts = [shard[name] for shard in shapes if name in shard]
            axis = split_axis(wanted, parts) if len(parts) == len(shapes) else None
            if parts:
                whole[name] = parts[0] if axis is None and parts[0] != wanted else wanted
        check_tensors(self.config, whole, str(self.folder))

    def tensor(self, name: str) -> torch.Tensor:
        """Map one tensor; shards are joined.

        Raises:
            ExportError: The model has none of that name, or the file is damaged.
        """
        import torch

        if self._loaded is None:
            try:
                self._loaded = [
                    torch.load(path, mmap=True, weights_only=True, map_location="cpu")
                    for path in self._shards
                ]
            except (RuntimeError, pickle.UnpicklingError, OSError) as error:
                raise ExportError(f"{self.folder}: weights can't be loaded: {error}") from error
        parts = [shard[name] for shard in self._loaded if name in shard]
        if not parts or name not in self._wanted:
            raise ExportError(f"{self.folder}: no tensor {name}")
        axis = split_axis(self._wanted[name], [tuple(part.shape) for part in parts])
        return parts[0] if axis is None else torch.cat(parts, dim=axis)


def split_axis(wanted: Shape, parts: list[Shape]) -> int | None:
    """Axis along which shards were cut; None when each holds the whole tensor."""
    for axis, size in enumerate(wanted):
        if parts[0][axis] != size and sum(part[axis] for part in parts) == size:
            return axis
    return None


def open_meta(source: ModelSource, cache: Path) -> MetaCheckpoint:
    """Open a folder.

    Raises:
        ExportError: A file is missing or damaged.
    """
    assert source.path is not None
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        raise ExportError(f"model {source.name}: no folder {folder}", model=source.name)
    tokenizer = Path(source.tokenizer) if source.tokenizer else find_tokenizer(folder)
    return MetaCheckpoint(folder, tokenizer, cache)


class _ShapeReader(pickle.Unpickler):
    """Reads the index of a .pth and builds shapes instead of tensors; runs no code of the file."""

    def persistent_load(self, pid: Any) -> Any:
        return None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if name.startswith("_rebuild_tensor"):
            return lambda _storage, _offset, size, *_rest: tuple(size)
        if name.startswith("_rebuild_parameter"):
            return lambda data, *_rest: data
        if module == "torch":
            return lambda *_args: None
        raise pickle.UnpicklingError(f"{module}.{name} isn't a tensor")


def read_shapes(path: Path) -> dict[str, Shape]:
    """Names and shapes of a .pth file, without torch.

    Raises:
        ExportError: The file is cut short, or isn't a plain dictionary of tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            index = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            found = _ShapeReader(io.BytesIO(archive.read(index))).load()
    except (zipfile.BadZipFile, StopIteration, OSError) as error:
        raise ExportError(f"{path}: cut short, or not a PyTorch file; fetch it again") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError) as error:
        raise ExportError(f"{path}: not a plain dictionary of tensors ({error})") from error
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        raise ExportError(f"{path}: weights are nested under `model`; save them at the top")
    return {str(name): shape for name, shape in found.items() if isinstance(shape, tuple)}


def read_params(
    path: Path, shapes: dict[str, Shape], shards: int, tokenizer_vocab: int
) -> ModelConfig:
    """Read params.json; what it leaves open is taken from tensor shapes.

    Raises:
        ExportError: It isn't there or a number is missing.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        dim, layers, heads = (int(data[key]) for key in ("dim", "n_layers", "n_heads"))
        eps = float(data["norm_eps"])
    except FileNotFoundError as error:
        raise ExportError(
            f"{path.parent}: no params.json; not a folder in Meta's format"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise ExportError(f"{path}: not readable: {error}") from error
    except KeyError as error:
        raise ExportError(f"{path}: {error} is missing") from error
    gate = shapes.get("layers.0.feed_forward.w1.weight")
    if gate is None:
        raise ExportError(f"{path.parent}: tensor layers.0.feed_forward.w1.weight is missing")
    vocab = int(data.get("vocab_size", -1))
    config = ModelConfig(
        architecture="qwen3" if data.get("use_qk_norm") else "llama",
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=int(data.get("n_kv_heads") or heads),
        head_dim=int(data.get("head_dim") or dim // heads),
        hidden=gate[0] * shards,
        vocab=vocab if vocab > 0 else tokenizer_vocab,
        norm_eps=eps,
        rope_theta=float(data.get("rope_theta", 10000.0)),
        rope_pairing="half" if data.get("use_hf_rope") else "interleaved",
        max_context=int(data.get("max_context") or _context(data)),
        rope_scaling=_scaling(data, dim),
        tied="output.weight" not in shapes,
        qkv_bias="layers.0.attention.wq.bias" in shapes,
        qk_norm="layers.0.attention.q_norm.weight" in shapes,
    )
    return check_config(config, str(path))


def _context(data: dict[str, Any]) -> int:
    """The format doesn't say it: Llama 2 had 4096 tokens, 3 had 8192, later ones 131072."""
    if data.get("use_scaled_rope"):
        return 131072
    return 8192 if float(data.get("rope_theta", 10000.0)) > 10000.0 else 4096


def _scaling(data: dict[str, Any], dim: int) -> RopeScaling | None:
    """Llama 3.2's files don't say their factor: the small models have 32, the large ones 8."""
    if not data.get("use_scaled_rope"):
        return None
    return RopeScaling(
        factor=float(data.get("rope_scale_factor") or (32.0 if dim <= 3072 else 8.0)),
        high_freq_factor=float(data.get("high_freq_factor", 4.0)),
    )
