"""What the device's numbers are held against: the same artifact, run on an export host."""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.artifact import LogitsRef
from farm.core.runner import RunnerBuild
from farm.core.runtime import Hello

#: Why no other code of the host was run, where nobody asks for it.
NO_OTHER_CPU = "no device of the run was known to have another CPU than this host"


@dataclass(frozen=True, slots=True)
class PathFloor:
    """How far order-only perturbations move the host artifact on one path, the farthest of them."""

    path: str
    max_abs_error: float
    #: Of the regression of the difference on the logits; see farm.judge.metrics.Relation.
    slope: float
    r_squared: float
    column_ratio: float
    #: Root mean square of ln(perplexity ratio); None where no row has a next token.
    log_perplexity: float | None


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Mean KL of the host artifact under order-only perturbations, per pass name."""

    kl_mean: tuple[tuple[str, float], ...]
    perturbations: int
    paths: tuple[PathFloor, ...] = ()


@dataclass(frozen=True, slots=True)
class IsaControl:
    """The artifact on the same CPU through other code of XNNPACK: what the choice of code does."""

    #: Beyond which XNNPACK used nothing: `avx2`, `avx` or `sse`.
    isa: str
    #: KL(normal || this), per pass name.
    kl_mean: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class HostRunResult:
    """The same artifact through the same runner on an export host."""

    runner: RunnerBuild
    hello: Hello
    logits: tuple[tuple[str, LogitsRef], ...]
    noise_floor: NoiseFloor | None
    #: Empty where no device has another CPU, or none could be made.
    controls: tuple[IsaControl, ...] = ()
    #: Why there are none.
    no_controls: str = NO_OTHER_CPU
    cache_hit: bool = False
