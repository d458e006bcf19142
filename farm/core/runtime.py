"""What happens on a device: launches of a runner, and what they printed.

Plain data between controller, site and judge. Times are seconds unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.artifact import LogitsPass, LogitsRef, ObjectRef


@dataclass(frozen=True, slots=True)
class DeployFile:
    """A file in a job's work folder, backed by an object of the content store."""

    object: ObjectRef
    #: Path inside the work folder, with forward slashes.
    path: str
    executable: bool = False


@dataclass(frozen=True, slots=True)
class RunnerBuild:
    """A runner for one ABI: its files and how it is started."""

    name: str
    version: str
    abi: str
    #: Hash over all files: names the binary in reports.
    sha256: str
    files: tuple[DeployFile, ...]
    #: argv of the work folder up to the runner's own arguments, for example
    #: ("./farm-runner",) or a loader with its library path in front.
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    libc: str | None = None
    #: The instruction set it is compiled for, before run-time dispatch.
    isa: str | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One timed workload inside a launch."""

    #: `pp128`, `tg64`, `tg64@d512`.
    name: str
    prefill: int
    decode: int
    depth: int
    repetitions: int
    warmup: int


@dataclass(frozen=True, slots=True)
class Generate:
    """Greedy continuation of a prompt."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    stop_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What one process start of the runner has to do."""

    #: Threads of the pool; 0 lets the runner choose (performance cores).
    threads: int
    tokens: tuple[int, ...] = ()
    passes: tuple[LogitsPass, ...] = ()
    generate: Generate | None = None
    measures: tuple[Measure, ...] = ()
    affinity: str = "auto"
    #: Order-only perturbation of custom SDPA; 0 is the normal order.
    sdpa_order: int = 0
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Hello:
    """How a runner introduces itself."""

    protocol: int
    version: str
    abi: str
    isa: str
    backends: tuple[str, ...]
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed window."""

    #: Name of the measure, or `load`.
    metric: str
    launch: int
    rep: int
    warmup: bool
    #: Tokens processed in the window; 0 for `load`.
    tokens: int
    duration_s: float
    #: From the start of a prefill window until its first token is chosen; None elsewhere.
    ttft_s: float | None = None
    #: Per-token durations of a decode window, seconds.
    token_s: tuple[float, ...] = ()
    #: Start on the device's monotonic clock while a runner's output is parsed; in a job's
    #: result, seconds since its first timed window.
    t_s: float = 0.0
    arm: str = "candidate"


@dataclass(frozen=True, slots=True)
class LaunchResult:
    """What one process start printed, parsed and complete."""

    hello: Hello
    samples: tuple[Sample, ...]
    #: By pass name.
    logits: tuple[tuple[str, LogitsRef], ...]
    generated: tuple[int, ...] | None
    #: `stop`, `length` or None when nothing was generated.
    stopped_by: str | None
    peak_rss_bytes: int | None
    load_s: float | None
    threads: int
    affinity: str
    #: Backends that the loaded model's delegates use; empty when the runner doesn't tell.
    backends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceJob:
    """One attempt's work for one device, as the controller submits it to a site."""

    job_id: str
    attempt: int
    epoch: int
    run_id: str
    cell_id: str
    device: str
    runner: str
    #: Program first; external weights after it.
    artifact: tuple[DeployFile, ...]
    launches: tuple[LaunchRequest, ...]
    #: Bytes of RAM the artifact is expected to need; 0 when unknown.
    ram_need_bytes: int = 0
    timeout_s: float = 3600.0
    toolchain: str = ""
    #: The SDK version the runner is built against; empty is farm's own.
    executorch: str = ""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What deploying cost."""

    pushed_bytes: int
    skipped_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DeviceRunResult:
    """All launches of one job on one device."""

    runner: RunnerBuild
    launches: tuple[LaunchResult, ...]
    deployed: Deployed
    #: Facts about the moment: governor, battery, temperatures; for the report.
    conditions: tuple[tuple[str, str], ...] = ()


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
