"""What a run config says, after validation: frozen and complete, with defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from farm.core.artifact import LogitsForm, ModelSource, Toolchain
from farm.core.asked import Prompt
from farm.core.deployment import Stages
from farm.core.runner import RunnerSpec

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
    #: Process starts of a cell that time the warm regime: at least, and at most.
    launches: int = 3
    max_launches: int = 50
    #: Process starts with the program's files out of the page cache.
    cold_launches: int = 1
    #: Windows of each metric inside one launch.
    repetitions: int = 3
    warmup: int = 1
    #: What a window of prefill or decode alone lasts at least, milliseconds: shorter work is
    #: repeated inside it. 0: never.
    window_ms: int = 125
    #: Most time a cell may spend in measuring, seconds.
    budget_s: float = 120.0
    #: Relative half width that every rate's interval shall get below; None: as narrow as the
    #: config's `regress` needs beside a baseline or with a required share of speeds, else any.
    precision: float | None = None
    #: After all that, decode for so long without a pause, seconds; None: don't.
    sustained_s: float | None = None


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
    #: Whether a small fp32 program checks the kernels of every device first.
    canary: bool = True
    #: In which form the logits of a device come.
    logits: LogitsForm = "auto"


@dataclass(frozen=True, slots=True)
class Resources:
    """What an export or a reference may take on an export host."""

    #: CPUs set aside, and threads; 0 leaves both to the pool.
    cpus: int = 0
    #: Memory set aside, bytes; 0 asks for none.
    memory_bytes: int = 0
    #: Most time of a worker process, seconds.
    timeout_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When the controller ends what doesn't end by itself."""

    #: Most time of one job, from its start on the device to its end, and of waiting for a person
    #: who holds the device, seconds.
    job_s: float = 4 * 3600.0
    #: Most time of the run, seconds.
    run_s: float = 48 * 3600.0


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
class Require:
    """How much of a run must have been decided; exact shares, 0..1. None: the command's default."""

    #: Of the planned cells, those judged.
    judged: Fraction | None = None
    #: Of the cells on whose speed a gate stands, those where it was decided.
    speed: Fraction | None = None

    def filled(self, default: Fraction) -> Require:
        """Take the default where the config says nothing."""
        return Require(
            default if self.judged is None else self.judged,
            default if self.speed is None else self.speed,
        )


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
    #: Only failures of this metric of the report; empty: of any.
    metric: str = ""
    #: Of `regress`: only losses up to this share; None: any.
    max_loss: float | None = None
    #: Of correctness: only where this stage differs from the one before it, such as `device_pte`;
    #: empty: of any, but of one stage only.
    stage: str = ""


@dataclass(frozen=True, slots=True)
class DeployWish:
    """Which devices get what a green nightly validated."""

    #: Selector.
    to: str
    stages: Stages = field(default_factory=Stages)
    wait_s: float = 0.0
    #: Name of the deployment; empty: the model's.
    name: str = ""
    #: Cell ids or globs; none: whatever passed.
    cells: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SelfCheckSpec:
    """How a nightly tries its own gate."""

    #: Nights from one planted slower artifact to the next.
    every: int = 7
    #: Recipe that makes it.
    slower: str = "xnnpack-8da4w-plain-sdpa"


#: Value of a field of core.artifact.Recipe.
RecipeValue = str | int | bool | None | tuple[tuple[str, str] | str, ...]


@dataclass(frozen=True, slots=True)
class RecipeChange:
    """A recipe of the config: a built-in one, changed."""

    name: str
    base: str
    #: Fields of core.artifact.Recipe and their values.
    fields: tuple[tuple[str, RecipeValue], ...]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run config."""

    name: str
    models: tuple[ModelSource, ...]
    toolchains: tuple[Toolchain, ...]
    #: Those that the config describes; names of kinds need no entry.
    runners: tuple[RunnerSpec, ...] = ()
    #: Those that the config makes of built-in ones.
    recipes: tuple[RecipeChange, ...] = ()
    matrix: Matrix = field(default_factory=Matrix)
    #: Each is a set of (field, value) that a cell must match in full to be left out.
    exclude: tuple[tuple[tuple[str, str], ...], ...] = ()
    devices: tuple[DeviceRequest, ...] = (DeviceRequest(select=""),)
    workload: Workload = field(default_factory=Workload)
    correctness: Correctness = field(default_factory=Correctness)
    #: What every cell's device answers for people to read.
    prompts: tuple[Prompt, ...] = ()
    export: Resources = field(default_factory=Resources)
    limits: Limits = field(default_factory=Limits)
    gates: tuple[Gate, ...] = ()
    #: Largest allowed loss against the baseline, as a fraction (0.02 is 2 %).
    regress: float = 0.02
    #: Speeds are held to the smallest loss that the budget decides; `regress` is for the rest.
    regress_auto: bool = False
    require: Require = field(default_factory=Require)
    waivers: tuple[Waiver, ...] = ()
    #: What a nightly deploys that ends with exit code 0; None: nothing.
    deploy: DeployWish | None = None
    #: Among runs that want the same devices: the greater goes first.
    priority: int = 0
    self_check: SelfCheckSpec | None = None
    #: File it came from, and the hash of what it says after overrides.
    source: str = ""
    sha256: str = ""
