"""config.json of a hub folder: every key is used, known to be harmless, or refused.

Where two keys disagree this does what transformers 5 does, and says so in a note.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.core.errors import ExportError
from models.config import ModelConfig, RopeScaling, check_config
from models.sources import hf_keys as keys
from models.sources.files import refuse_lfs_pointer

_OTHER_FORMAT = (
    "farm's graph doesn't have it. Remove the key if the model computes the same without it"
)


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """A config and what its reader had to choose."""

    config: ModelConfig
    #: Ids that end a reply, as config.json has them; None when it has none.
    eos_ids: tuple[int, ...] | None
    #: Places that disagreed, and which one was taken.
    notes: tuple[str, ...] = ()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ExportError: It isn't there, isn't JSON, or isn't an object; names the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ExportError(
                f"{path}: a link to {path.readlink()}, which isn't there; fetch the file again"
            ) from error
        raise ExportError(f"{path.parent}: no {path.name}; {_not_a_model(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: not readable: {error}") from error
    refuse_lfs_pointer(text, path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path}: not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise ExportError(f"{path}: a JSON {type(data).__name__}, an object is expected")
    return data


def _not_a_model(path: Path) -> str:
    if (path.parent / "snapshots").is_dir():
        found = sorted((path.parent / "snapshots").iterdir())
        if found:
            return f"this is the root of the hub's cache: give {found[-1]}"
    return "not a model folder"


def refuse_adapter(folder: Path) -> None:
    """Refuse a LoRA adapter, alone or beside base weights: transformers would apply it.

    Raises:
        ExportError: There is one; names its base.
    """
    path = folder / "adapter_config.json"
    if not path.exists():
        return
    data = read_json(path)
    raise ExportError(
        f"{path}: an adapter ({data.get('peft_type', 'of unknown type')}) for"
        f" {data.get('base_model_name_or_path', 'an unnamed base')}, which would change the"
        " weights; merge it into its base (merge_and_unload of peft) and save that, or take the"
        " file away to use the base alone"
    )


def read_config(path: Path) -> ReadConfig:
    """Read config.json.

    Raises:
        ExportError: A key that farm doesn't know or whose value its graph doesn't have; names
            file, key and value.
    """
    raw = read_json(path)
    data = {key: value for key, value in raw.items() if value is not None}
    kind = data.get("model_type")
    if kind not in keys.DEFAULTS:
        raise ExportError(
            f"{path}: model_type {kind!r} isn't supported; {', '.join(keys.DEFAULTS)} are"
        )
    _refuse_quantised(data, path)
    _refuse_architecture(data, kind, path)
    _refuse_unknown(data, path)
    numbers = Numbers(data, path)
    layers, context = numbers.count("num_hidden_layers"), _context(numbers, kind)
    if "sliding_window" not in raw and kind != "llama":
        data["sliding_window"] = keys.SLIDING_WINDOW
    _refuse_windows(data, path, kind, layers, context)
    if kind != "qwen2" and data.get("attention_bias", False) is not False:
        raise _refused(
            path, "attention_bias", data["attention_bias"], "biases of the attention's projections"
        )
    heads, dim = numbers.count("num_attention_heads"), numbers.count("hidden_size")
    kv_heads = heads if "num_key_value_heads" in raw else keys.KV_HEADS.get(kind, heads)
    rope = _Rope(data, path, context)
    config = ModelConfig(
        architecture=kind,
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=numbers.count("num_key_value_heads", kv_heads),
        head_dim=numbers.count("head_dim", keys.HEAD_DIM.get(kind, dim // max(heads, 1))),
        hidden=numbers.count("intermediate_size"),
        vocab=numbers.count("vocab_size"),
        norm_eps=numbers.real("rms_norm_eps", keys.DEFAULTS[kind]["rms_norm_eps"]),
        rope_theta=rope.theta,
        rope_pairing="half",
        max_context=context,
        rope_scaling=rope.llama3(),
        tied=flag(data, "tie_word_embeddings", path),
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
    )
    config = rope.with_linear(check_config(config, str(path)))
    return ReadConfig(config, eos_ids(data, path), rope.notes)


def eos_ids(data: dict[str, Any], path: Path) -> tuple[int, ...] | None:
    """Ids of `eos_token_id`, one or several; None when there is no such key.

    Raises:
        ExportError: It is neither.
    """
    value = data.get("eos_token_id")
    if value is None:
        return None
    found = value if isinstance(value, list) else [value]
    if not all(type(item) is int and item >= 0 for item in found):
        raise ExportError(f"{path}: eos_token_id is {value!r}; an id or a list of ids is expected")
    return tuple(found)


def _context(numbers: Numbers, kind: str) -> int:
    default = keys.DEFAULTS[kind]["max_position_embeddings"]
    return numbers.count("max_position_embeddings", default)


class Numbers:
    """Numbers of one file; each error names file and key."""

    def __init__(self, data: dict[str, Any], path: Path, prefix: str = "") -> None:
        self.data, self.path, self.prefix = data, path, prefix

    def real(self, key: str, default: float | None = None) -> float:
        """Return a number; without a default it has to be there."""
        value = self.data.get(key, default)
        if value is None:
            raise ExportError(f"{self.path}: {self.prefix}{key} is missing")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ExportError(f"{self.path}: {self.prefix}{key} is {value!r}, a number is expected")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number; without a default it has to be there."""
        value = self.real(key, default)
        if not value.is_integer():
            raise ExportError(
                f"{self.path}: {self.prefix}{key} is {value!r}, a whole number is expected"
            )
        return int(value)


def flag(data: dict[str, Any], key: str, path: Path) -> bool:
    """Return a value that is true or false, false where it is missing.

    Raises:
        ExportError: It is something else.
    """
    value = data.get(key, False)
    if not isinstance(value, bool):
        raise ExportError(f"{path}: {key} is {value!r}, true or false is expected")
    return value


def _refused(path: Path, key: str, value: Any, effect: str) -> ExportError:
    text = json.dumps(value)
    shown = text if len(text) <= 80 else text[:77] + "..."
    return ExportError(f"{path}: {key} is {shown}: it changes {effect}; {_OTHER_FORMAT}")


def _refuse_quantised(data: dict[str, Any], path: Path) -> None:
    for key in keys.QUANTISED:
        if key in data:
            value = data[key]
            method = value.get("quant_method") if isinstance(value, dict) else None
            raise ExportError(
                f"{path}: {key}: the weights were quantised before they were saved (quant_method"
                f" {method or 'unnamed'}); farm quantises itself, from F64, F32, F16 or BF16. Give"
                " the checkpoint that it was made from, or dequantise and save it"
            )


def _refuse_architecture(data: dict[str, Any], kind: str, path: Path) -> None:
    found = data.get("architectures", [])
    allowed = keys.ARCHITECTURES[kind]
    if not isinstance(found, list) or not all(name in allowed for name in found):
        raise ExportError(
            f"{path}: architectures is {found!r}, model_type {kind} is read as"
            f" {' or '.join(sorted(allowed))}; another head or graph isn't supported"
        )


def _refuse_unknown(data: dict[str, Any], path: Path) -> None:
    for key, value in data.items():
        if key in keys.USED or key in keys.HARMLESS:
            continue
        if key not in keys.NEUTRAL:
            raise ExportError(
                f"{path}: {key} is {json.dumps(value)[:80]}: farm doesn't know this key, so what it"
                " would change is unknown. Remove it if the model computes the same without it"
            )
        allowed, effect = keys.NEUTRAL[key]
        if not any(type(value) is type(item) and value == item for item in allowed):
            raise _refused(path, key, value, effect)


def _refuse_windows(data: dict[str, Any], path: Path, kind: str, layers: int, context: int) -> None:
    """Refuse attention that doesn't see the whole text, where a window would ever matter."""
    effect = "how far a token sees back"
    kinds = data.get("layer_types", [])
    if not isinstance(kinds, list) or any(item != "full_attention" for item in kinds):
        raise _refused(path, "layer_types", kinds, effect)
    window = data.get("sliding_window")
    if window is None or (type(window) is int and window >= context):
        return
    asked = flag(data, "use_sliding_window", path)
    if kind == "llama":
        if "use_sliding_window" not in data or asked:
            raise _refused(path, "sliding_window", window, effect)
        return
    first = data.get("max_window_layers", 28)
    if asked and "layer_types" not in data and not (type(first) is int and first >= layers):
        raise _refused(path, "use_sliding_window", True, effect)


class _Rope:
    """Base and kind of RoPE, from the key that transformers takes."""

    def __init__(self, data: dict[str, Any], path: Path, context: int) -> None:
        self.path, self.context = path, context
        old, new = (self._rules(data, key) for key in ("rope_scaling", "rope_parameters"))
        self.name = "rope_scaling" if old else "rope_parameters"
        self.rules = old or new
        self.notes: tuple[str, ...] = ()
        if old and new and old != new:
            self.notes += (
                f"{path}: rope_scaling and rope_parameters disagree; rope_scaling is taken, as"
                " transformers does",
            )
        self.kind = self._kind()
        self.numbers = Numbers(self.rules, path, f"{self.name}.")
        self.theta = self._theta(data)

    def _rules(self, data: dict[str, Any], key: str) -> dict[str, Any]:
        found = data.get(key, {})
        if not isinstance(found, dict):
            raise ExportError(f"{self.path}: {key} is {found!r}, an object is expected")
        return {name: value for name, value in found.items() if value is not None}

    def _kind(self) -> str:
        kind = self.rules.get("rope_type", self.rules.get("type", "default"))
        if not isinstance(kind, str) or kind not in keys.ROPE_USED:
            raise ExportError(
                f"{self.path}: {self.name}: RoPE scaling {kind!r} isn't supported;"
                f" {', '.join(keys.ROPE_USED)} are"
            )
        if self.rules.get("partial_rotary_factor", 1) != 1:
            factor = self.rules["partial_rotary_factor"]
            effect = "how much of a head is rotated"
            raise _refused(self.path, f"{self.name}.partial_rotary_factor", factor, effect)
        for key in self.rules:
            if key not in keys.ROPE_COMMON and key not in keys.ROPE_USED[kind]:
                raise ExportError(
                    f"{self.path}: {self.name}.{key}: RoPE of type {kind!r} has no such key, so"
                    " what it would change is unknown; remove it, or give the type that it"
                    " belongs to as rope_type"
                )
        return kind

    def _theta(self, data: dict[str, Any]) -> float:
        outer = Numbers(data, self.path).real("rope_theta", 10000.0)
        inner = self.numbers.real("rope_theta", outer)
        if "rope_theta" in data and inner != outer:
            self.notes += (
                f"{self.path}: rope_theta is {outer:g} and {self.name}.rope_theta {inner:g}; the"
                " latter is taken, as transformers does",
            )
        return inner

    def llama3(self) -> RopeScaling | None:
        """Return Llama 3's scaling, where that is the kind."""
        if self.kind != "llama3":
            return None
        scaling = RopeScaling(
            factor=self.numbers.real("factor"),
            low_freq_factor=self.numbers.real("low_freq_factor"),
            high_freq_factor=self.numbers.real("high_freq_factor"),
            original_context=self.numbers.count("original_max_position_embeddings", self.context),
        )
        if scaling.factor <= 0 or not 0 < scaling.low_freq_factor < scaling.high_freq_factor:
            raise ExportError(
                f"{self.path}: {self.name}: factor {scaling.factor:g}, low_freq_factor"
                f" {scaling.low_freq_factor:g} and high_freq_factor {scaling.high_freq_factor:g}"
                " have to be positive, the last the largest"
            )
        return scaling

    def with_linear(self, config: ModelConfig) -> ModelConfig:
        """Return the config with linear scaling, where that is the kind."""
        if self.kind != "linear":
            return config
        factor = self.numbers.real("factor")
        if factor == 1:
            return config
        if factor <= 0:
            raise ExportError(f"{self.path}: {self.name}.factor is {factor:g}, it has to be > 0")
        return replace(config, rope_factors=(factor,) * (config.head_dim // 2))
