"""The report of a run: schema_version 1 of report.json, field by field.

Additions only. A number that doesn't exist is None, with a flag that says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from farm.core.artifact import Delegation, ToolchainVersions
from farm.core.asked import AnswerReport
from farm.core.comparison import BaselineReport, MetricComparison
from farm.core.device import DeviceFacts, Incident
from farm.core.nights import LevelChange, MetricTrend, SelfCheck
from farm.core.runtime import Arm, Regime
from farm.core.sustained import Sustained
from farm.core.telemetry import LaunchState
from farm.core.work import NOT_COUNTED, WorkReport

Outcome = Literal["passed", "failed", "inconclusive", "errored", "skipped"]
Trust = Literal["ok", "unverified", "noisy", "invalid"]
#: What was found of one side of a cell, correctness or speed; `not gated`: nobody asked.
Decision = Literal["passed", "failed", "undecided", "not gated"]


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate, decided. `passed` is None when it can't be."""

    metric: str
    op: str
    threshold: float | None
    value: float | None
    passed: bool | None
    #: As the user wrote it, or which built-in rule it is.
    text: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StageComparison:
    """Two neighbouring stages of the correctness chain on one path, row by row."""

    #: `source`, `tokens`, `eager_fp32`, `eager_quantised`, `host_pte`, `device_pte`.
    from_: str
    to: str
    path: Literal["decode", "prefill"]
    tokens: int
    bit_equal: bool
    cosine_min: float | None
    #: KL(from || to), nats.
    kl_mean: float | None
    kl_max: float | None
    #: Share of rows whose most likely token is the same, 0..1.
    top1_agreement: float | None
    max_abs_error: float | None
    #: Position of the first row whose most likely token differs; None: no such row.
    first_divergence: int | None
    perplexity_from: float | None
    perplexity_to: float | None
    noise_floor_kl: float | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """A small fp32 program through the same kernels, and one layer of the model on its own."""

    max_abs_error: float | None
    #: Cosine of what the layer adds to its recorded inputs, device to PyTorch: mean over
    #: positions, on the path where it is lower.
    layer_cosine: float | None = None
    #: Of the worst position.
    layer_cosine_min: float | None = None
    #: How much of what PyTorch adds the device does, by least squares; 1 is all.
    layer_gain: float | None = None
    #: Which layer it was, counted from 0.
    layer: int | None = None
    #: Why there is no cosine; empty where there is one.
    layer_reason: str = ""


@dataclass(frozen=True, slots=True)
class CorrectnessReport:
    """Is the deployed model still right."""

    stages: tuple[StageComparison, ...]
    canary: Canary | None
    #: Greedy continuation of the prompt on the device, as text.
    generated_text: str | None
    gates: tuple[GateResult, ...]
    prompt: str = ""
    #: The ids of that continuation; None where the runner gave none.
    generated: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class SampleReport:
    """One sample of a performance metric, in the metric's unit."""

    value: float
    t_s: float
    launch: int
    rep: int
    arm: Arm = "candidate"


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """One metric: what was measured, how sure it is, whether it can be trusted."""

    #: pp128, tg64@d512, ttft, load, inter_token.
    metric: str
    #: tok/s or s.
    unit: str
    regime: Regime
    threads: int
    affinity: str
    #: What exactly is timed, in words.
    definition: str
    median: float | None
    #: 95 % interval of the median over launches; None with too few launches.
    ci95: tuple[float, float] | None
    #: Smallest relative change that samples like these show with 95 % power, for example 0.03; of
    #: a row held against a baseline the smallest loss, what is accepted included.
    min_detectable_change: float | None
    samples: tuple[SampleReport, ...]
    gates: tuple[GateResult, ...]
    trust: Trust
    #: Guard name to ok, flagged or unavailable.
    guards: dict[str, str] = field(default_factory=dict)
    #: Why there is no number; empty where there is one.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Memory of the runner."""

    peak_rss_bytes: int | None
    #: Peak of each launch, in launch order; empty where the kernel doesn't tell.
    launches_bytes: tuple[int, ...] = ()
    gates: tuple[GateResult, ...] = ()
    #: The same of the baseline's arm, where one ran beside the cell.
    baseline_launches_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EnergyReport:
    """Energy, where the device has a gauge."""

    #: Joules of the whole device per decoded token.
    j_per_token: float | None
    #: Which gauge it comes from; empty when there is none.
    source: str = ""
    #: Mean power of the timed windows, watts.
    mean_w: float | None = None
    #: Why there is no number.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactReport:
    """The file that was deployed."""

    key: str | None
    sha256: str | None
    #: The program alone.
    size_bytes: int | None
    #: External weights (.ptd); None when they are inside the program.
    data_sha256: str | None = None
    data_size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RunnerFile:
    """A program or library of a runner."""

    #: Its place in the work folder.
    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RunnerReport:
    """The binary that ran it."""

    name: str
    version: str | None = None
    sha256: str | None = None
    libc: str | None = None
    isa: str | None = None
    backend_requested: str | None = None
    backend_effective: str | None = None
    #: Version of the ExecuTorch it was built against.
    executorch: str | None = None
    #: Which of several ways of building was taken, and why; empty where there is one.
    how: str = ""
    #: What farm's own code did in place of ExecuTorch's, `llama::custom_sdpa.out`; None where
    #: that isn't known.
    own_code: tuple[str, ...] | None = None
    files: tuple[RunnerFile, ...] = ()


@dataclass(frozen=True, slots=True)
class CellDevice:
    """The device of a cell; facts are None when it was never reached."""

    name: str
    identity: str | None
    transport: str
    abi: str | None
    soc: str | None
    cores: int | None
    ram_bytes: int | None
    os: str | None
    emulated: bool | None
    #: Build fingerprint or kernel build; must be equal for numbers to be comparable.
    os_build: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as data."""

    kind: str
    message: str
    context: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """One try of a cell's device job."""

    n: int
    device: str
    started_at: str | None
    ended_at: str | None
    outcome: str
    error: ErrorReport | None


@dataclass(frozen=True, slots=True)
class SecondSitting:
    """What a cell gave when it was measured once more beside its baseline, later in the run."""

    outcome: Outcome
    reason: str
    flags: tuple[str, ...]
    attempts: tuple[AttemptReport, ...]
    performance: tuple[PerformanceReport, ...]
    #: Its metrics on their own; what both sittings say stands in `baseline`.
    metrics: tuple[MetricComparison, ...]


@dataclass(frozen=True, slots=True)
class CellResult:
    """The one result of a planned cell."""

    cell_id: str
    job_id: str
    model: str
    recipe: str
    toolchain: str
    artifact: ArtifactReport
    runner: RunnerReport
    device: CellDevice
    outcome: Outcome
    #: Why, in one sentence; empty for a plain pass.
    reason: str
    flags: tuple[str, ...]
    attempts: tuple[AttemptReport, ...]
    correctness: CorrectnessReport | None
    performance: tuple[PerformanceReport, ...]
    memory: MemoryReport
    energy: EnergyReport
    conditions: dict[str, str]
    baseline: BaselineReport | None
    work: WorkReport = NOT_COUNTED
    #: Threads asked for; 0 is auto.
    threads: int = 0
    waived: bool = False
    #: Bytes sent to and spared on the device.
    pushed_bytes: int | None = None
    skipped_bytes: int | None = None
    #: Correctness and speed apart; a cell with a speed gate passes only when both were decided.
    correctness_decision: Decision = "undecided"
    speed_decision: Decision = "not gated"
    #: What somebody should look at about the cell's device, whatever the outcome.
    alarms: tuple[str, ...] = ()
    #: Run that it comes from, in a baseline that several runs made; empty: the report's own.
    origin_run: str = ""
    #: Where the first look left something open and there was a baseline to run beside.
    second: SecondSitting | None = None
    #: Where the workload asks for it.
    sustained: Sustained | None = None
    #: Changes of level over the last nights, this one included; shown, never judged.
    changes: tuple[LevelChange, ...] = ()
    #: First run in which the cell failed since it last passed; empty where it doesn't fail.
    red_since: str = ""
    #: Of metrics that earlier nights have too.
    trend: tuple[MetricTrend, ...] = ()
    #: What each timed launch said of the device; empty where nothing could be read.
    launches: tuple[LaunchState, ...] = ()
    #: To each prompt of the config, in its order; no part of any verdict.
    answers: tuple[AnswerReport, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportReport:
    """One artifact of the run."""

    key: str | None
    model: str
    recipe: str
    toolchain: str
    artifact: ArtifactReport
    seconds: float | None
    cpu_s: float | None
    peak_rss_bytes: int | None
    cache_hit: bool
    delegation: Delegation | None
    unquantised: tuple[str, ...]
    error: ErrorReport | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """A device of the inventory during the run."""

    name: str
    identity: str | None
    facts: DeviceFacts | None
    #: Share of the run's wall time in which it had no job, 0..1.
    idle_share: float | None
    state: str
    reason: str = ""
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of cells."""

    judged: int
    passed: int
    failed: int
    waived: int
    inconclusive: int
    errored: int
    skipped: int
    #: Cells on whose speed a gate stands, and those of them where it was decided.
    speed_gated: int = 0
    speed_decided: int = 0


@dataclass(frozen=True, slots=True)
class FarmReport:
    """Which farm made the report."""

    version: str
    tree_sha256: str


@dataclass(frozen=True, slots=True)
class Report:
    """report.json."""

    schema_version: int
    run_id: str
    name: str
    config_sha256: str
    config: dict[str, Any]
    started_at: str
    ended_at: str
    exit_code: int
    summary: Summary
    host: dict[str, Any]
    toolchains: dict[str, ToolchainVersions]
    farm: FarmReport
    alarms: tuple[str, ...]
    devices: tuple[DeviceReport, ...]
    exports: tuple[ExportReport, ...]
    results: tuple[CellResult, ...]
    #: The last line, as printed.
    verdict_line: str = ""
    #: Where the config asks for it (`self_check`).
    self_check: SelfCheck | None = None
