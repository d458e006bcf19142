"""LoRA adapters in peft's format: what they add to weights of a base in the hub's format.

An adapter's product is added in float32, where a merge that is saved would round to the base's
dtype. Adapters that do more than that (DoRA, trained biases, whole modules, a base that was changed
at the start of the training) are refused by key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.core.errors import ExportError
from models.sources.config_values import Numbers, flag, read_json, refused
from models.sources.files import check_finite
from models.sources.safetensors_files import DTYPES, Stored, load_tensor, read_header

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_USED = frozenset({"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"})
#: Which modules were trained is said by the tensors; the rest is of the training.
_HARMLESS = frozenset(
    {
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("task_type", "inference_mode", "lora_dropout", "base_model_name_or_path", "revision"),
        *("peft_version", "auto_mapping", "runtime_config", "qalora_group_size", "megatron_core"),
    }
)
#: Keys that change what is computed, unless they have one of these values: value and effect.
_NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "peft_type": (("LORA",), "the kind of adapter"),
    "init_lora_weights": ((True, False, "gaussian"), "the base, at the start of the training"),
    "bias": (("none",), "biases"),
    "lora_bias": ((False,), "biases"),
    "modules_to_save": (([],), "whole modules beside the adapter"),
    "use_dora": ((False,), "the length of weight rows"),
    "use_qalora": ((False,), "the kind of adapter"),
    "fan_in_fan_out": ((False,), "which side of a weight is its input"),
    "layer_replication": ((), "which layers there are"),
    "loftq_config": (({},), "the base, at the start of the training"),
    "target_parameters": (([],), "weights that no Linear has"),
    "trainable_token_indices": ((), "rows of the embedding"),
    "ensure_weight_tying": ((False,), "which weights are one"),
    "alora_invocation_tokens": ((), "when the adapter is on"),
}
_NAME = re.compile(r"base_model\.model\.(?:model\.)?(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True, slots=True)
class Target:
    """A matrix of the base, or rows of one, under its canonical name."""

    name: str
    #: Rows of the stored matrix; None is all.
    rows: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two factors of one product, and what it is multiplied by."""

    low: Stored
    high: Stored
    scale: float


class Adapter:
    """What an adapter adds, by canonical name; tensors are read when they are asked for."""

    def __init__(
        self, folder: Path, targets: Mapping[str, Sequence[Target]], shapes: Mapping[str, Any]
    ) -> None:
        """Read an adapter's config and header.

        Args:
            folder: The adapter.
            targets: Matrices of the base by stored name, without `model.` and `.weight`.
            shapes: Stored shapes [rows, columns] of those that a product may be added to.

        Raises:
            ExportError: A key or tensor isn't understood or doesn't fit; names it.
        """
        self.folder = folder
        self.files = (folder / CONFIG, folder / WEIGHTS)
        #: By stored name.
        self._pairs = _pairs(folder, shapes)
        self._of: dict[str, tuple[str, Target]] = {
            target.name: (stem, target) for stem in self._pairs for target in targets[stem]
        }

    def added(self, name: str) -> torch.Tensor | None:
        """What is added to a tensor, float32; None where it stays as it is.

        Raises:
            ExportError: The file is damaged, or a number isn't finite.
        """
        if name not in self._of:
            return None
        stem, target = self._of[name]
        whole = self._product(stem)
        return whole if target.rows is None else whole[slice(*target.rows)]

    def _product(self, stem: str) -> torch.Tensor:
        """What is added to a stored matrix, float32 [rows, columns]."""
        pair = self._pairs[stem]
        low, high = (
            check_finite(load_tensor(part), part.name, part.path).float()
            for part in (pair.low, pair.high)
        )
        return high @ low * pair.scale


def _pairs(folder: Path, shapes: Mapping[str, Any]) -> dict[str, _Pair]:
    path, weights = folder / CONFIG, folder / WEIGHTS
    data = {key: value for key, value in read_json(path).items() if value is not None}
    _refuse_unknown(data, path)
    if not weights.is_file():
        raise ExportError(f"{folder}: no {WEIGHTS}; only safetensors are read")
    found: dict[str, dict[str, Stored]] = {}
    unknown = []
    for name, info in read_header(weights).items():
        match = _NAME.fullmatch(name)
        if match is None or match[1] not in shapes:
            unknown.append(name)
            continue
        if info.dtype not in DTYPES:
            raise ExportError(f"{weights}: tensor {name} is {info.dtype}, no plain number")
        found.setdefault(match[1], {})[match[2]] = info
    if unknown:
        raise ExportError(
            f"{weights}: tensor {sorted(unknown)[0]} would not be used: the base has no such"
            " projection, or it is more than a LoRA of one"
        )
    if not found:
        raise ExportError(f"{weights}: has no tensors, so the adapter would change nothing")
    numbers = Numbers(data, path)
    return {stem: _pair(stem, parts, shapes[stem], numbers) for stem, parts in found.items()}


def _pair(
    stem: str, parts: Mapping[str, Stored], shape: tuple[int, ...], numbers: Numbers
) -> _Pair:
    weights = next(iter(parts.values())).path
    if set(parts) != {"A", "B"}:
        raise ExportError(f"{weights}: {stem} has lora_{'/'.join(parts)} alone; A and B are needed")
    low, high = parts["A"], parts["B"]
    rank = _for_module(numbers, "rank_pattern", stem, _finite(numbers, "r"))
    alpha = _for_module(numbers, "alpha_pattern", stem, _finite(numbers, "lora_alpha"))
    if rank < 1:
        raise ExportError(f"{numbers.path}: r (or rank_pattern) of {stem} is {rank:g}, not above 0")
    wanted = ((rank, shape[1]), (shape[0], rank))
    if (low.shape, high.shape) != wanted:
        raise ExportError(
            f"{weights}: lora_A and lora_B of {stem} have shapes {list(low.shape)} and"
            f" {list(high.shape)}; for {list(shape)} and rank {rank:g} {list(wanted[0])} and"
            f" {list(wanted[1])} are expected"
        )
    rooted = flag(numbers.data, "use_rslora", numbers.path)
    return _Pair(low, high, alpha / (math.sqrt(rank) if rooted else rank))


def _for_module(numbers: Numbers, key: str, stem: str, usual: float) -> float:
    """A number of one module: the first pattern that its name ends with counts, as in peft."""
    patterns = numbers.data.get(key, {})
    if not isinstance(patterns, dict):
        raise refused(numbers.path, key, patterns, "the scale of the adapter")
    inner = Numbers(patterns, numbers.path, f"{key}.")
    for pattern in patterns:
        try:
            if re.fullmatch(rf"(.*\.)?({pattern})", _module_name(stem)):
                return _finite(inner, pattern)
        except re.error as error:
            raise ExportError(f"{numbers.path}: {key}.{pattern}: no pattern ({error})") from error
    return usual


def _finite(numbers: Numbers, key: str) -> float:
    value = numbers.real(key)
    if not math.isfinite(value):
        raise ExportError(
            f"{numbers.path}: {numbers.prefix}{key} is {value}, a finite number is expected"
        )
    return value


def _module_name(stem: str) -> str:
    """Name of a module as transformers and peft have it."""
    return stem if stem == "lm_head" else f"model.{stem}"


def _refuse_unknown(data: Mapping[str, Any], path: Path) -> None:
    for key, value in data.items():
        if key in _USED or key in _HARMLESS:
            continue
        allowed, effect = _NEUTRAL.get(key, ((), "something that farm doesn't know"))
        if not any(type(value) is type(item) and value == item for item in allowed):
            raise refused(path, key, value, effect)
    if "peft_type" not in data:
        raise ExportError(f"{path}: peft_type is missing; LORA is read")


def refuse_beside(folder: Path) -> None:
    """Refuse an adapter in a base's own folder: transformers would apply it.

    Raises:
        ExportError: There is one; names its base.
    """
    path = folder / CONFIG
    if not path.exists():
        return
    data = read_json(path)
    raise ExportError(
        f"{path}: an adapter ({data.get('peft_type', 'of unknown type')}) for"
        f" {data.get('base_model_name_or_path', 'an unnamed base')}, which would change the"
        " weights; give the base's folder as `hf` and this one as `adapter`, or take the file away"
        " to use the base alone"
    )
