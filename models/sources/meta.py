"""Checkpoints of Meta's format: params.json and consolidated.*.pth, one shard or several."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.core.artifact import ModelSource
from farm.core.errors import ExportError
from models.checkpoint import SourceFile, TokenizerData
from models.config import ModelConfig, RopeScaling, check_config
from models.sources import meta_keys
from models.sources.config_values import Numbers, flag, read_json
from models.sources.files import check_finite, refuse_lfs_pointer, source_file
from models.sources.lora import refuse_beside
from models.sources.shapes import check_tensors, check_vocabulary, refuse_unknown, wanted_tensors
from models.sources.tokenizer_files import find_tokenizer, read_tokenizer_file, rule_files
from models.tokenizer import last_token

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]

#: Names that belong to weights which were quantised or adapted before they were saved.
_ODD = re.compile(r"scale|zero|qweight|lora|base_layer|expert")


class MetaCheckpoint:
    """A folder in Meta's format; tensors are mapped, not loaded."""

    def __init__(self, folder: Path, tokenizer: Path, cache: Path) -> None:
        self.folder = folder
        self._shards = shard_files(folder)
        refuse_beside(folder)
        self.tokenizer: TokenizerData = read_tokenizer_file(tokenizer)
        self.notes: tuple[str, ...] = self.tokenizer.notes
        shapes = [_plain_shapes(path) for path in self._shards]
        vocab = last_token(self.tokenizer.json)[1] + 1
        self.config = read_params(folder / "params.json", shapes[0], len(shapes), vocab)
        self._wanted = wanted_tensors(self.config)
        for path, shard in zip(self._shards, shapes, strict=True):
            refuse_unknown((name for name in shard if name not in self._wanted), path)
        self._check(shapes)
        check_vocabulary(self.tokenizer, self.config.vocab, tokenizer)
        self.notes += guessed(folder / "params.json", self.config)
        if self.config.tied:
            self.notes += (
                f"{self._shards[0]}: no tensor output.weight, which this format always has; the"
                " output is taken to be the embedding",
            )
        self._used = [*self._shards, tokenizer, *rule_files(tokenizer)]
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
            except (RuntimeError, pickle.UnpicklingError, OSError, EOFError) as error:
                raise ExportError(f"{self.folder}: weights can't be loaded: {error}") from error
        parts = []
        for path, shard in zip(self._shards, self._loaded, strict=True):
            stored = next((key for key in (name, _stock_name(name)) if key in shard), None)
            if stored is not None:
                parts.append(check_finite(shard[stored], stored, path))
        if not parts or name not in self._wanted:
            raise ExportError(f"{self.folder}: no tensor {name}")
        axis = split_axis(self._wanted[name], [tuple(part.shape) for part in parts])
        return parts[0] if axis is None else torch.cat(parts, dim=axis)


def shard_files(folder: Path) -> list[Path]:
    """Weight files of a folder in the order in which their parts follow each other.

    Raises:
        ExportError: There are none.
    """
    found = list(folder.glob("consolidated.*.pth")) or list(folder.glob("*.pth"))
    if not found:
        raise ExportError(f"{folder}: no consolidated.00.pth; not a folder in Meta's format")
    # The tenth comes after the second, with and without zeros before it.
    return sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])


def split_axis(wanted: Shape, parts: list[Shape]) -> int | None:
    """Axis along which shards were cut; None when each holds the whole tensor."""
    if any(len(part) != len(wanted) for part in parts):
        return None
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


class _Name(str):
    """A name from torch that the index of a .pth refers to; calling it makes nothing."""

    __slots__ = ()

    def __call__(self, *_args: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What the index of a .pth says of a tensor."""

    shape: Shape
    #: As torch names the storage or the dtype, for example `BFloat16Storage`.
    kind: str


class _ShapeReader(pickle.Unpickler):
    """Reads the index of a .pth and builds shapes instead of tensors; runs no code of the file."""

    def persistent_load(self, pid: Any) -> Any:
        return str(pid[1]) if isinstance(pid, tuple) and len(pid) > 1 else ""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if name == "_rebuild_tensor_v3":
            return lambda _storage, _offset, size, *rest: StoredTensor(tuple(size), str(rest[3]))
        if name.startswith("_rebuild_tensor"):
            return lambda storage, _offset, size, *_rest: StoredTensor(tuple(size), str(storage))
        if name.startswith("_rebuild_parameter"):
            return lambda data, *_rest: data
        if (module, name) == ("torch", "Size"):
            return tuple
        if module in ("torch", "torch.storage"):
            return _Name(name)
        raise pickle.UnpicklingError(f"{module}.{name} isn't a tensor")


#: Kinds of numbers that are read; integers and 8-bit floats mean nothing without their scales.
_KINDS = frozenset(
    {
        *("DoubleStorage", "FloatStorage", "HalfStorage", "BFloat16Storage"),
        *("float64", "float32", "float16", "bfloat16"),
    }
)
#: Tables of rotations that Llama 1 and 2 stored; they follow from params.json.
_UNUSED = ("rope.freqs",)


def read_shapes(path: Path) -> dict[str, StoredTensor]:
    """Names, shapes and kinds of a .pth file's tensors, without torch.

    Raises:
        ExportError: The file is cut short, or isn't a plain dictionary of tensors.
    """
    try:
        with path.open("rb") as file:
            refuse_lfs_pointer(file.read(64), path)
        with zipfile.ZipFile(path) as archive:
            index = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            found = _ShapeReader(io.BytesIO(archive.read(index))).load()
    except (zipfile.BadZipFile, StopIteration, OSError) as error:
        raise ExportError(f"{path}: cut short, or not a PyTorch file; fetch it again") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError) as error:
        raise ExportError(f"{path}: not a plain dictionary of tensors ({error})") from error
    if not isinstance(found, dict):
        raise ExportError(f"{path}: holds a {type(found).__name__}, no dictionary of tensors")
    if isinstance(found.get("model"), dict):
        raise ExportError(f"{path}: weights are nested under `model`; save them at the top")
    for name, value in found.items():
        if not isinstance(value, StoredTensor):
            raise ExportError(f"{path}: entry {name} is no tensor; save the weights alone")
    return {str(name): value for name, value in found.items()}


def _plain_shapes(path: Path) -> dict[str, Shape]:
    """Shapes by canonical name; refuses weights that aren't plain floating-point numbers."""
    found: dict[str, Shape] = {}
    for name, tensor in read_shapes(path).items():
        if name in _UNUSED:
            continue
        if tensor.kind not in _KINDS:
            refuse_unknown([name] if "scale" in name else [], path)
            raise ExportError(
                f"{path}: tensor {name} is stored as {tensor.kind}; only float64, float32, float16"
                " and bfloat16 are read. Dequantise the weights and save them"
            )
        canonical = name.replace("q_norm_fn.", "q_norm.").replace("k_norm_fn.", "k_norm.")
        if canonical in found:
            raise ExportError(f"{path}: tensor {name} is there under two names")
        found[canonical] = tensor.shape
    return found


def _stock_name(name: str) -> str:
    """The name that ExecuTorch's converters give the norms of single heads."""
    return name.replace(".q_norm.", ".q_norm_fn.").replace(".k_norm.", ".k_norm_fn.")


def read_params(
    path: Path, shapes: dict[str, Shape], shards: int, tokenizer_vocab: int
) -> ModelConfig:
    """Read params.json; what it leaves open is taken from tensor shapes.

    Raises:
        ExportError: It isn't there or a number is missing.
    """
    data = {key: value for key, value in read_json(path).items() if value is not None}
    refuse_unknown_keys(data, path)
    numbers = Numbers(data, path)
    dim, layers, heads = (numbers.count(key) for key in ("dim", "n_layers", "n_heads"))
    gate = shapes.get("layers.0.feed_forward.w1.weight")
    if gate is None:
        refuse_unknown((name for name in shapes if _ODD.search(name)), path.parent)
        raise ExportError(f"{path.parent}: tensor layers.0.feed_forward.w1.weight is missing")
    vocab, hidden = numbers.count("vocab_size", -1), gate[0] * shards
    if numbers.count("hidden_dim", hidden) != hidden:
        raise ExportError(
            f"{path}: hidden_dim is {numbers.count('hidden_dim')}, the feed-forward block's tensors"
            f" have {hidden} rows"
        )
    qk_norm = flag(data, "use_qk_norm", path)
    if qk_norm and not flag(data, "qk_norm_before_rope", path):
        raise ExportError(
            f"{path}: use_qk_norm without qk_norm_before_rope true: norms of query and key after"
            " RoPE aren't supported"
        )
    biased = "layers.0.attention.wq.bias" in shapes
    if "attention_qkv_bias" in data and flag(data, "attention_qkv_bias", path) != biased:
        raise ExportError(
            f"{path}: attention_qkv_bias is {data['attention_qkv_bias']}, and the weights have"
            f" {'' if biased else 'no '}biases of query, key and value"
        )
    config = ModelConfig(
        architecture="qwen3" if qk_norm else "qwen2" if biased else "llama",
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=numbers.count("n_kv_heads", heads),
        head_dim=numbers.count("head_dim", dim // max(heads, 1)),
        hidden=hidden,
        vocab=vocab if vocab > 0 else tokenizer_vocab,
        norm_eps=numbers.real("norm_eps"),
        rope_theta=_theta(numbers),
        rope_pairing="half" if flag(data, "use_hf_rope", path) else "interleaved",
        max_context=numbers.count("max_context", _context(numbers)),
        rope_scaling=_scaling(numbers, dim),
        tied="output.weight" not in shapes,
        qkv_bias=biased,
        qk_norm=qk_norm,
    )
    return check_config(config, str(path))


def refuse_unknown_keys(data: dict[str, Any], path: Path) -> None:
    """Refuse keys of params.json that change what is computed, or may.

    Raises:
        ExportError: Names file, key and value.
    """
    for key, value in data.items():
        if key in meta_keys.USED or key in meta_keys.HARMLESS:
            continue
        allowed, effect = meta_keys.NEUTRAL.get(key, ((), ""))
        if any(type(value) is type(item) and value == item for item in allowed):
            continue
        why = f"it changes {effect}, which farm's graph doesn't have"
        raise ExportError(
            f"{path}: {key} is {json.dumps(value)[:80]}:"
            f" {why if effect else 'farm does not know this key'}. Remove it if the model"
            " computes the same without it"
        )


def _theta(numbers: Numbers) -> float:
    """`rope_freq_base` is ExecuTorch's old name of it."""
    old, new = numbers.real("rope_freq_base", 10000.0), numbers.data.get("rope_theta")
    if new is not None and "rope_freq_base" in numbers.data and old != new:
        raise ExportError(f"{numbers.path}: rope_theta is {new} and rope_freq_base {old:g}")
    return numbers.real("rope_theta", old)


def _context(numbers: Numbers) -> int:
    """The format doesn't say it: Llama 2 had 4096 tokens, 3 had 8192, later ones 131072."""
    if flag(numbers.data, "use_scaled_rope", numbers.path):
        return 131072
    return 8192 if _theta(numbers) > 10000.0 else 4096


def guessed(path: Path, config: ModelConfig) -> tuple[str, ...]:
    """What params.json leaves open and follows from the size of the models that Meta released."""
    scaling = config.rope_scaling
    if not isinstance(scaling, RopeScaling) or "rope_scale_factor" in read_json(path):
        return ()
    return (
        f"{path}: use_scaled_rope without rope_scale_factor; {scaling.factor:g} is taken, as Meta's"
        f" models of this width (dim {config.dim}) have it",
    )


def _scaling(numbers: Numbers, dim: int) -> RopeScaling | None:
    """Llama 3.2's files don't say their factor: the small models have 32, the large ones 8."""
    if not flag(numbers.data, "use_scaled_rope", numbers.path):
        return None
    return RopeScaling(
        factor=numbers.real("rope_scale_factor", 32.0 if dim <= 3072 else 8.0),
        high_freq_factor=numbers.real("high_freq_factor", 4.0),
    )
