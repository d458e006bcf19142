"""What the device's numbers are held against: the same artifact, run on an export host."""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.artifact import LogitsRef
from farm.core.runner import RunnerBuild
from farm.core.runtime import Hello


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Mean KL of the host artifact under order-only perturbations, per pass name."""

    kl_mean: tuple[tuple[str, float], ...]
    perturbations: int


@dataclass(frozen=True, slots=True)
class HostRunResult:
    """The same artifact through the same runner on an export host."""

    runner: RunnerBuild
    hello: Hello
    logits: tuple[tuple[str, LogitsRef], ...]
    noise_floor: NoiseFloor | None
    cache_hit: bool = False
