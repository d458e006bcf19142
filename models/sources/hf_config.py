"""config.json of a hub folder: every key is used, known to be harmless, or refused.

Where two keys disagree this does what transformers 5 does, and says so in a note.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.core.errors import ExportError
from models.config import ModelConfig, check_config
from models.sources import hf_keys as keys
from models.sources.config_values import Numbers, flag, read_json, refused
from models.sources.hf_families import FAMILIES, Family
from models.sources.hf_rope import read_rope
from models.sources.hf_scales import Scheme, read_scheme

#: `layer_types` of a layer that sees all, and of one that has a window.
_KINDS = ("full_attention", "sliding_attention")


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """A config and what its reader had to choose."""

    config: ModelConfig
    #: Ids that end a reply, as config.json has them; None when it has none.
    eos_ids: tuple[int, ...] | None
    #: Places that disagreed, and which one was taken.
    notes: tuple[str, ...]
    #: How its weights are named.
    family: Family
    #: How they were rounded before they were saved; None where they weren't.
    scheme: Scheme | None = None


def read_config(path: Path) -> ReadConfig:
    """Read config.json.

    Raises:
        ExportError: A key that farm doesn't know or whose value its graph doesn't have; names
            file, key and value.
    """
    raw = read_json(path)
    data = {key: value for key, value in raw.items() if value is not None}
    family = FAMILIES.get(str(data.get("model_type")))
    if family is None:
        raise ExportError(
            f"{path}: model_type {data.get('model_type')!r} isn't supported; {', '.join(FAMILIES)}"
            " are. A program that optimum-executorch or ExecuTorch exports of it runs as"
            " {name: ours, pte: FILE, tokenizer: FILE}"
        )
    scheme = read_scheme(data, path)
    _refuse_architecture(data, family, path)
    _refuse_unknown(data, family, path)
    numbers = Numbers(data, path)
    layers = numbers.count("num_hidden_layers")
    heads, dim = numbers.count("num_attention_heads"), numbers.count("hidden_size")
    kv_heads = heads if "num_key_value_heads" in raw else family.kv_heads or heads
    width = numbers.count("head_dim", family.head_dim or dim // max(heads, 1))
    rope = read_rope(data, family, width, path)
    unrotated = _unrotated(data, family, layers, path)
    window, windowed = _windows(data, raw, family, layers, unrotated, path)
    config = ModelConfig(
        architecture=family.name,
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=numbers.count("num_key_value_heads", kv_heads),
        head_dim=width,
        hidden=numbers.count("intermediate_size"),
        vocab=numbers.count("vocab_size"),
        norm_eps=numbers.real("rms_norm_eps", family.norm_eps),
        rope_pairing="half",
        tied=flag(data, "tie_word_embeddings", path, family.tied),
        unrotated=unrotated,
        window=window,
        windowed=windowed,
        **rope.fields,
        **family.fixed,
        **({"embedding_scale": dim**0.5} if family.root_embedding else {}),
        **_scales(raw, family, path),
    )
    check_config(config, str(path))
    return ReadConfig(config, eos_ids(data, path), rope.notes, family, scheme)


def _scales(raw: dict[str, Any], family: Family, path: Path) -> dict[str, Any]:
    """Fields of ModelConfig that are numbers of their own keys."""
    found: dict[str, Any] = {}
    for key, scale in family.scales.items():
        off = scale.nullable and key in raw and raw[key] is None
        if off or (raw.get(key) is None and scale.default is None):
            continue
        value = Numbers({} if raw.get(key) is None else raw, path).real(key, scale.default)
        if not 0 < value < math.inf:
            raise ExportError(f"{path}: {key} is {value:g}, it has to be positive")
        found[scale.name] = scale.convert(value)
    return found


def _unrotated(data: dict[str, Any], family: Family, layers: int, path: Path) -> tuple[int, ...]:
    """Layers without rotation."""
    if not family.unrotated_every:
        return ()
    every = Numbers(data, path).count("no_rope_layer_interval", family.unrotated_every)
    if every <= 0:
        raise ExportError(f"{path}: no_rope_layer_interval is {every}, it has to be positive")
    listed = data.get("no_rope_layers", [int((n + 1) % every != 0) for n in range(layers)])
    right = isinstance(listed, list) and len(listed) >= layers
    if not right or any(type(item) is not int or item not in (0, 1) for item in listed):
        raise ExportError(
            f"{path}: no_rope_layers is {json.dumps(listed)[:80]}; a list of 0 (without RoPE) and 1"
            " for each layer is expected"
        )
    return tuple(n for n in range(layers) if not listed[n])


def _windows(
    data: dict[str, Any],
    raw: dict[str, Any],
    family: Family,
    layers: int,
    unrotated: tuple[int, ...],
    path: Path,
) -> tuple[int, tuple[int, ...]]:
    """Tokens that windowed layers see, and which layers those are."""
    effect = "how far a token sees back"
    numbers = Numbers(data, path)
    window = numbers.count("sliding_window") if data.get("sliding_window") is not None else 0
    if "sliding_window" not in raw:
        window = family.window or 0
    optional = family.windows in ("later", "unrotated")
    asked = flag(data, "use_sliding_window", path, not optional)
    context = numbers.count("max_position_embeddings", family.context)
    if family.windows in ("all", "listed", "pattern") and not asked and 0 < window < context:
        # transformers doesn't read that flag here: a model without windows would be another one.
        raise refused(path, "use_sliding_window", False, effect)
    if family.windows == "none":
        if asked and 0 < window < context:
            raise refused(path, "sliding_window", window, effect)
        window = 0
    window = window if asked else 0
    if window < 0:
        raise ExportError(f"{path}: sliding_window is {window}, it has to be positive")
    usual: set[int] = set()
    if window or family.windows == "pattern":
        usual = _usual_windows(data, family, layers, unrotated, path)
    listed = data.get("layer_types", [_KINDS[n in usual] for n in range(layers)])
    if not isinstance(listed, list) or len(listed) != layers or not set(listed) <= set(_KINDS):
        raise refused(path, "layer_types", listed, effect)
    windowed = tuple(n for n in range(layers) if listed[n] == _KINDS[1])
    fixed = family.windows in ("none", "all") and set(windowed) != usual
    if fixed or (windowed and not window):
        raise refused(path, "layer_types", listed, effect)
    return window, windowed


def _usual_windows(
    data: dict[str, Any], family: Family, layers: int, unrotated: tuple[int, ...], path: Path
) -> set[int]:
    """Layers that have a window where config.json doesn't list them."""
    numbers = Numbers(data, path)
    if family.windows == "later":
        return {*range(numbers.count("max_window_layers", 28), layers)}
    if family.windows == "unrotated":
        return set(unrotated)
    if family.windows == "pattern":
        every = family.pattern
        if "sliding_window_pattern" in family.keys:
            every = numbers.count("sliding_window_pattern", every)
            if "layer_types" not in data and data.get("_sliding_window_pattern", every) != every:
                value = data["_sliding_window_pattern"]
                raise refused(path, "_sliding_window_pattern", value, "which layers have a window")
        if every <= 0:
            raise ExportError(f"{path}: sliding_window_pattern is {every}, it has to be positive")
        return {n for n in range(layers) if (n + 1) % every}
    return set(range(layers))


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


def _refuse_architecture(data: dict[str, Any], family: Family, path: Path) -> None:
    found = data.get("architectures", [])
    allowed = family.architectures
    if not isinstance(found, list) or not all(name in allowed for name in found):
        raise ExportError(
            f"{path}: architectures is {found!r}, model_type {family.name} is read as"
            f" {' or '.join(sorted(allowed))}; another head or graph isn't supported"
        )


def _refuse_unknown(data: dict[str, Any], family: Family, path: Path) -> None:
    used = keys.USED | keys.HARMLESS | family.keys | family.scales.keys() | {*keys.QUANTISED}
    for key, value in data.items():
        if key in used:
            continue
        if key not in keys.NEUTRAL:
            raise ExportError(
                f"{path}: {key} is {json.dumps(value)[:80]}: farm doesn't know this key, so what it"
                " would change is unknown. Remove it if the model computes the same without it"
            )
        allowed, effect = keys.NEUTRAL[key]
        allowed = family.neutral.get(key, allowed)
        if not any(type(value) is type(item) and value == item for item in allowed):
            raise refused(path, key, value, effect)
