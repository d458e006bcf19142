"""What a run config says, after validation: frozen and complete, with defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from farm.core.artifact import ModelSource, Toolchain

Operator = Literal["<=", ">=", "<", ">", "=="]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Every combination of these is a cell on every requested device."""

    recipe: tuple[str, ...] = ("xnnpack-8da4w",)
    toolchain: tuple[str, ...] = ("default",)
    runner: tuple[str, ...] = ("executorch",)
    #: 0 is `auto`.
    threads: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """Devices that cells run on: each one that matches, or any `count` of a pool."""

    select: str
    #: None: one cell for each matching device. N: cells float over the pool, N at a time.
    any: int | None = None
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured."""

    prefill: tuple[int, ...] = (128,)
    decode: tuple[int, ...] = (64,)
    depth: tuple[int, ...] = (0,)
    launches: int = 3
    repetitions: int = 3
    warmup: int = 1
    #: Most time a cell may spend in measuring, seconds.
    budget_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Correctness:
    """What is compared with eager PyTorch."""

    #: `builtin`, or a UTF-8 text file.
    text: str = "builtin"
    #: Tokens of it, teacher-forced.
    tokens: int = 256
    #: The user's message whose answer the report shows.
    prompt: str = "What is the capital of France?"
    max_new_tokens: int = 48


@dataclass(frozen=True, slots=True)
class Gate:
    """A bound on one metric of a cell."""

    #: `perplexity`, `decode_tok_s`, `prefill_tok_s`, `kl_mean`, `top1_agreement`,
    #: `peak_rss_bytes`, `ttft_s`, `load_s`, ...
    metric: str
    op: Operator
    value: float
    #: `host`: value is a factor of the host artifact's figure. None: an absolute bound.
    relative_to: Literal["host", "eager_fp32", "eager_quantised"] | None = None
    #: As the user wrote it, for reports.
    text: str = ""


@dataclass(frozen=True, slots=True)
class Waiver:
    """A failure that is known and allowed until a date."""

    #: Glob on cell ids.
    cells: str
    gate: str
    #: ISO date; from the day after, the waiver itself fails the cell.
    until: str
    reason: str
    issue: str = ""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run config."""

    name: str
    models: tuple[ModelSource, ...]
    toolchains: tuple[Toolchain, ...]
    matrix: Matrix = field(default_factory=Matrix)
    #: Each is a set of (field, value) that a cell must match in full to be left out.
    exclude: tuple[tuple[tuple[str, str], ...], ...] = ()
    devices: tuple[DeviceRequest, ...] = (DeviceRequest(select=""),)
    workload: Workload = field(default_factory=Workload)
    correctness: Correctness = field(default_factory=Correctness)
    gates: tuple[Gate, ...] = ()
    #: Largest allowed loss against the baseline, as a fraction (0.02 is 2 %).
    regress: float = 0.02
    #: Share of planned cells that must be judged, 0..1.
    require_judged: float = 0.0
    waivers: tuple[Waiver, ...] = ()
    #: File it came from, and the hash of what it says after overrides.
    source: str = ""
    sha256: str = ""
