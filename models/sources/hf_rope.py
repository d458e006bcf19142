"""Rotations in config.json: base, kind and numbers, from the key that transformers takes.

Two kinds depend on how long the text is. `dynamic` is what `default` is up to the model's context.
`longrope` rotates every position otherwise once a text passes the length of the first training:
no cache survives that, so the model is read with that length as its context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.core.errors import ExportError
from models.config import RopeScaling, YarnScaling
from models.sources import hf_keys as keys
from models.sources.config_values import Numbers, refused
from models.sources.hf_families import Family

#: Base of the rotations in windowed layers where the key is missing.
_LOCAL_THETA = 10000.0


@dataclass(frozen=True, slots=True)
class ReadRope:
    """Rotations of a model."""

    #: Fields of ModelConfig; the context is one, since it bounds where they hold.
    fields: dict[str, Any]
    notes: tuple[str, ...]


def read_rope(data: dict[str, Any], family: Family, head_dim: int, path: Path) -> ReadRope:
    """Read the rotations of a config without nulls.

    Raises:
        ExportError: A kind that the family doesn't have, or a number that is missing or wrong.
    """
    return _Reader(data, family, head_dim, path).read()


def _rules(found: Any, name: str, path: Path) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ExportError(f"{path}: {name} is {found!r}, an object is expected")
    return {key: value for key, value in found.items() if value is not None}


class _Reader:
    def __init__(self, data: dict[str, Any], family: Family, head_dim: int, path: Path) -> None:
        self.data, self.family, self.path = data, family, path
        self.outer = Numbers(data, path)
        self.context = self.outer.count("max_position_embeddings", family.context)
        self.notes: tuple[str, ...] = ()
        self.name, self.rules = self._choose()
        self.numbers = Numbers(self.rules, path, f"{self.name}.")
        self.kind = self._kind()
        self.rotary = self._rotary(head_dim)

    def read(self) -> ReadRope:
        fields: dict[str, Any] = {"max_context": self.context, "rotary_dim": self.rotary[1]}
        fields["rope_theta"] = self._theta(self.numbers, "rope_theta", self.family.rope_theta)
        if self.family.local_rope:
            fields["local_rope_theta"] = self._local_theta()
        fields |= {
            "default": dict,
            "dynamic": self._dynamic,
            "linear": self._linear,
            "llama3": self._llama3,
            "yarn": self._yarn,
            "longrope": self._longrope,
        }[self.kind]()
        return ReadRope(fields, self.notes)

    def _choose(self) -> tuple[str, dict[str, Any]]:
        """The rules that count, and their key."""
        old, new = (
            _rules(self.data.get(key, {}), key, self.path)
            for key in ("rope_scaling", "rope_parameters")
        )
        if self.family.local_rope:
            self._refuse_others(new)
            name = "rope_parameters.full_attention"
            # What was scaled before there were two sets is that of the layers that see all.
            return name, _rules(new.get("full_attention", {}), name, self.path) | old
        if old and new and old != new:
            self.notes += (
                f"{self.path}: rope_scaling and rope_parameters disagree; rope_scaling is taken, as"
                " transformers does",
            )
        return ("rope_scaling", old) if old else ("rope_parameters", new)

    def _refuse_others(self, new: dict[str, Any]) -> None:
        for key in new:
            if key not in ("full_attention", "sliding_attention"):
                raise ExportError(
                    f"{self.path}: rope_parameters.{key}: one set of rules for full_attention and"
                    " one for sliding_attention are expected"
                )

    def _kind(self) -> str:
        kind = self.rules.get("rope_type", self.rules.get("type", "default"))
        if not isinstance(kind, str) or kind not in self.family.ropes:
            raise ExportError(
                f"{self.path}: {self.name}: RoPE scaling {kind!r} isn't supported;"
                f" {', '.join(self.family.ropes)} are"
            )
        for key in self.rules:
            if key not in keys.ROPE_COMMON and key not in keys.ROPE_USED[kind]:
                raise ExportError(
                    f"{self.path}: {self.name}.{key}: RoPE of type {kind!r} has no such key, so"
                    " what it would change is unknown; remove it, or give the type that it"
                    " belongs to as rope_type"
                )
        return kind

    def _rotary(self, head_dim: int) -> tuple[int, int]:
        """Elements of a head that are rotated, and the same as ModelConfig has it."""
        key = "partial_rotary_factor"
        inner = self.rules.get(key, 1)
        if not self.family.partial_rope:
            if inner != 1:
                effect = "how much of a head is rotated"
                raise refused(self.path, f"{self.name}.{key}", inner, effect)
            return head_dim, 0
        share = self._theta(self.numbers, key, 1.0)
        rotated = int(head_dim * share)
        if not 0 < share <= 1 or rotated < 2 or rotated % 2:
            raise ExportError(
                f"{self.path}: {key} is {share:g}: {rotated} of a head's {head_dim} elements would"
                " be rotated, an even number of them is needed"
            )
        return rotated, 0 if rotated == head_dim else rotated

    def _theta(self, numbers: Numbers, key: str, default: float, outer_key: str = "") -> float:
        """A number that stands among the rules or beside them; the rules win."""
        name = outer_key or key
        outer = self.outer.real(name, default)
        inner = numbers.real(key, outer)
        if name in self.data and inner != outer:
            self.notes += (
                f"{self.path}: {name} is {outer:g} and {numbers.prefix}{key} {inner:g}; the"
                " latter is taken, as transformers does",
            )
        return inner

    def _local_theta(self) -> float:
        name = "rope_parameters.sliding_attention"
        found = self.data.get("rope_parameters", {}).get("sliding_attention") or {}
        rules = _rules(found, name, self.path)
        kind = rules.get("rope_type", rules.get("type", "default"))
        others = rules.keys() - {"rope_type", "type", "rope_theta"}
        if kind != "default" or others:
            raise refused(self.path, name, rules, "the rotations of windowed layers")
        numbers = Numbers(rules, self.path, f"{name}.")
        return self._theta(numbers, "rope_theta", _LOCAL_THETA, "rope_local_base_freq")

    def _positive(self, key: str) -> float:
        value = self.numbers.real(key)
        if not 0 < value < math.inf:
            raise ExportError(f"{self.path}: {self.name}.{key} is {value:g}, it has to be positive")
        return value

    def _dynamic(self) -> dict[str, Any]:
        self._positive("factor")
        return {}

    def _linear(self) -> dict[str, Any]:
        factor = self._positive("factor")
        return {"rope_factors": () if factor == 1 else (factor,) * (self.rotary[0] // 2)}

    def _llama3(self) -> dict[str, Any]:
        scaling = RopeScaling(
            factor=self.numbers.real("factor"),
            low_freq_factor=self.numbers.real("low_freq_factor"),
            high_freq_factor=self.numbers.real("high_freq_factor"),
            original_context=self._original(),
        )
        if scaling.factor <= 0 or not 0 < scaling.low_freq_factor < scaling.high_freq_factor:
            raise ExportError(
                f"{self.path}: {self.name}: factor {scaling.factor:g}, low_freq_factor"
                f" {scaling.low_freq_factor:g} and high_freq_factor {scaling.high_freq_factor:g}"
                " have to be positive, the last the largest"
            )
        return {"rope_scaling": scaling}

    def _original(self) -> int:
        return self.numbers.count("original_max_position_embeddings", self.context)

    def _yarn(self) -> dict[str, Any]:
        factor, original = self._positive("factor"), self._original()
        truncate = self.rules.get("truncate", True)
        if not isinstance(truncate, bool):
            raise ExportError(
                f"{self.path}: {self.name}.truncate is {truncate!r}, true or false is expected"
            )
        fast, slow = self.numbers.real("beta_fast", 0) or 32.0, self.numbers.real("beta_slow", 0)
        yarn = YarnScaling(factor, fast, slow or 1.0, original, truncate)
        if original <= 0 or not 0 < yarn.beta_slow <= yarn.beta_fast:
            raise ExportError(
                f"{self.path}: {self.name}: beta_slow {yarn.beta_slow:g}, beta_fast"
                f" {yarn.beta_fast:g} and original_max_position_embeddings {original} have to be"
                " positive, beta_fast no smaller than beta_slow"
            )
        one, all_ = (self.numbers.real(key, 0) for key in ("mscale", "mscale_all_dim"))
        usual = _grown(factor, one) / _grown(factor, all_) if one and all_ else _grown(factor)
        scale = self.numbers.real("attention_factor", usual)
        return {"rope_scaling": yarn, "rope_scale": scale}

    def _longrope(self) -> dict[str, Any]:
        key = "original_max_position_embeddings"
        original = self.outer.count(key, 4096)
        if self._original() != original and key in self.rules:
            self.notes += (
                f"{self.path}: {key} is {original}, {self.name}.{key} {self._original()}; the"
                " former is taken, as transformers does",
            )
        if not original > 1:
            raise ExportError(f"{self.path}: {key} is {original}, it has to be above 1")
        factors = self._factors("short_factor")
        self._factors("long_factor")
        growth = self.numbers.real("factor", self.context / original)
        usual = math.sqrt(1 + math.log(growth) / math.log(original)) if growth > 1 else 1.0
        scale = self.numbers.real("attention_factor", usual)
        fields: dict[str, Any] = {"rope_factors": factors, "rope_scale": scale}
        if self.context > original:
            fields["max_context"] = original
            self.notes += (
                f"{self.path}: RoPE of type longrope rotates all positions otherwise in texts of"
                f" more than {key} ({original}) tokens, so that is the context, not"
                f" {self.context}",
            )
        return fields

    def _factors(self, key: str) -> tuple[float, ...]:
        found, pairs = self.rules.get(key), self.rotary[0] // 2
        listed = found if isinstance(found, list) else []
        right = len(listed) == pairs > 0
        if not right or not all(type(f) in (int, float) and 0 < f < math.inf for f in listed):
            raise ExportError(
                f"{self.path}: {self.name}.{key}: a list of {pairs} positive numbers is expected"
            )
        return tuple(float(value) for value in listed)


def _grown(factor: float, weight: float = 1.0) -> float:
    """How much YaRN raises attention for a context that is `factor` times longer."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
