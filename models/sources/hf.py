"""Checkpoints of the model hub's format: config.json and safetensors, from a folder or the hub."""

from __future__ import annotations

import json
import struct
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.core.artifact import ModelSource
from farm.core.errors import ExportError
from models.checkpoint import SourceFile, TokenizerData
from models.config import ModelConfig, RopeScaling, check_config
from models.sources.files import source_file
from models.sources.shapes import check_tensors
from models.sources.tokenizer_files import (
    RULE_NAMES,
    TOKENIZER_NAMES,
    find_tokenizer,
    read_tokenizer_file,
)

if TYPE_CHECKING:
    import torch

_LAYER = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "self_attn.q_norm": "attention.q_norm",
    "self_attn.k_norm": "attention.k_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}
_OUTER = {"embed_tokens": "tok_embeddings", "norm": "norm", "lm_head": "output"}

#: Largest header that a safetensors file may have, as the format says.
_MAX_HEADER = 100_000_000


def canonical_name(name: str) -> str | None:
    """Canonical name of a hub tensor; None for one that no supported model uses."""
    stem, _, kind = name.removeprefix("model.").rpartition(".")
    if stem.startswith("layers."):
        _, layer, rest = stem.split(".", 2)
        return f"layers.{layer}.{_LAYER[rest]}.{kind}" if rest in _LAYER else None
    return f"{_OUTER[stem]}.{kind}" if stem in _OUTER else None


class HfCheckpoint:
    """A folder with config.json and safetensors; tensors are mapped, not loaded."""

    def __init__(self, folder: Path, tokenizer: Path, cache: Path) -> None:
        self.folder = folder
        self.config = read_config(folder / "config.json")
        self._where: dict[str, tuple[Path, str]] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        weights = weight_files(folder)
        for path in weights:
            for name, shape in read_header(path).items():
                canonical = canonical_name(name)
                if canonical is not None:
                    self._where[canonical] = (path, name)
                    shapes[canonical] = shape
        check_tensors(self.config, shapes, str(folder))
        self.tokenizer: TokenizerData = read_tokenizer_file(tokenizer)
        rules = [tokenizer.parent / name for name in RULE_NAMES]
        self._used = [*weights, tokenizer, *(path for path in rules if path.is_file())]
        self._cache = cache

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """See Checkpoint."""
        return tuple(source_file(path, self._cache) for path in self._used)

    def tensor(self, name: str) -> torch.Tensor:
        """Map one tensor, in the dtype it is stored in.

        Raises:
            ExportError: The model has none of that name, or the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        if name not in self._where:
            raise ExportError(f"{self.folder}: no tensor {name}")
        path, stored = self._where[name]
        try:
            with safe_open(path, framework="pt") as opened:
                found: torch.Tensor = opened.get_tensor(stored)
        except SafetensorError as error:
            raise ExportError(f"{path}: damaged ({error}); fetch it again") from error
        return found


def open_hf(source: ModelSource, cache: Path) -> HfCheckpoint:
    """Open a folder, or fetch a repository of the hub and open it.

    Raises:
        ExportError: It can't be fetched (the message says how to log in), or is damaged.
    """
    assert source.path is not None
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        folder = _fetch(source, cache)
    tokenizer = Path(source.tokenizer) if source.tokenizer else find_tokenizer(folder)
    return HfCheckpoint(folder, tokenizer, cache)


def _fetch(source: ModelSource, cache: Path) -> Path:
    """Let the hub's own client download; it resumes and verifies."""
    name = str(source.path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ExportError(f"model {source.name}: no folder {name}", model=source.name)
    import huggingface_hub
    from huggingface_hub import errors

    wanted = ["config.json", "*.safetensors", "*.safetensors.index.json"]
    place = "log in with `hf auth login`, or put the files into a folder and give `hf: FOLDER`"
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                allow_patterns=[*wanted, *TOKENIZER_NAMES, *RULE_NAMES],
                cache_dir=cache / "hub",
            )
        )
    except errors.GatedRepoError as error:
        raise ExportError(
            f"model {source.name}: {name} is gated; accept its licence on the hub, then {place}",
            model=source.name,
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ExportError(
            f"model {source.name}: the hub has no {name}, or it is private; {place}",
            model=source.name,
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(
            f"model {source.name}: can't fetch {name} from the hub ({reason}). Without network,"
            " put the files into a folder and give `hf: FOLDER`",
            model=source.name,
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """Weight files of a model folder.

    Raises:
        ExportError: There are none, or the index names one that isn't there.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise ExportError(f"{folder}: {', '.join(missing) or 'every shard'} is missing")
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    raise ExportError(f"{folder}: no model.safetensors; only safetensors are read")


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file, checked against its size.

    Raises:
        ExportError: The file is cut short or isn't one.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            raw = file.read(8)
            length = struct.unpack("<Q", raw)[0] if len(raw) == 8 else _MAX_HEADER
            header = json.loads(file.read(length)) if length < min(size, _MAX_HEADER) else None
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: not readable as safetensors ({error})") from error
    if not isinstance(header, dict):
        raise ExportError(f"{path}: not a safetensors file, or cut short; fetch it again")
    tensors = {name: info for name, info in header.items() if name != "__metadata__"}
    end = 8 + length + max((info["data_offsets"][1] for info in tensors.values()), default=0)
    if end > size:
        raise ExportError(f"{path}: cut short, {size} of {end} bytes; fetch it again")
    return {name: tuple(info["shape"]) for name, info in tensors.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExportError(f"{path.parent}: no {path.name}; not a model folder") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise ExportError(f"{path}: not a JSON object")
    return data


def read_config(path: Path) -> ModelConfig:
    """Read config.json.

    Raises:
        ExportError: The architecture isn't supported or a number is missing.
    """
    data = _read_json(path)
    kind = data.get("model_type")
    if kind not in ("llama", "qwen2", "qwen3"):
        raise ExportError(f"{path}: model_type {kind!r} isn't supported; llama, qwen2, qwen3 are")
    for key, allowed in (
        ("hidden_act", "silu"),
        ("mlp_bias", False),
        ("use_sliding_window", False),
    ):
        if data.get(key, allowed) != allowed:
            raise ExportError(f"{path}: {key} {data[key]!r} isn't supported, only {allowed!r} is")
    if kind != "qwen2" and data.get("attention_bias", False):
        raise ExportError(f"{path}: attention_bias isn't supported for {kind}")

    def number(key: str, default: Any = None) -> Any:
        value = data.get(key, default)
        if value is None:
            raise ExportError(f"{path}: {key} is missing")
        return value

    heads, dim = int(number("num_attention_heads")), int(number("hidden_size"))
    theta, scaling = _rope(data, path)
    config = ModelConfig(
        architecture=kind,
        dim=dim,
        layers=int(number("num_hidden_layers")),
        heads=heads,
        kv_heads=int(number("num_key_value_heads", heads)),
        head_dim=int(number("head_dim", dim // heads)),
        hidden=int(number("intermediate_size")),
        vocab=int(number("vocab_size")),
        norm_eps=float(number("rms_norm_eps")),
        rope_theta=theta,
        rope_pairing="half",
        max_context=int(number("max_position_embeddings")),
        rope_scaling=scaling,
        tied=bool(data.get("tie_word_embeddings", False)),
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
    )
    return check_config(config, str(path))


def _rope(data: dict[str, Any], path: Path) -> tuple[float, RopeScaling | None]:
    """Base and scaling; newer files hold both in `rope_parameters`."""
    rules = data.get("rope_parameters") or data.get("rope_scaling") or {}
    theta = float(data.get("rope_theta") or rules.get("rope_theta") or 10000.0)
    kind = rules.get("rope_type", rules.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ExportError(f"{path}: RoPE scaling {kind!r} isn't supported; default and llama3 are")
    return theta, RopeScaling(
        factor=float(rules["factor"]),
        low_freq_factor=float(rules["low_freq_factor"]),
        high_freq_factor=float(rules["high_freq_factor"]),
        original_context=int(rules["original_max_position_embeddings"]),
    )
