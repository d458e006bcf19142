"""What happens on a device: launches of a runner, and what they printed.

Plain data between controller, site and judge. Times are seconds unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from farm.core.artifact import LogitsForm, LogitsPass, LogitsRef, ObjectRef, Sdk
from farm.core.runner import DeployFile, RunnerBuild, RunnerSpec
from farm.core.telemetry import NOTHING_USUAL, LaunchTelemetry, Start, Usual

#: How a launch finds the device: right after its files arrived; with its files out of the page
#: cache; or with them in it, after another launch.
Regime = Literal["first_ever", "cold", "warm"]
#: Longest work of one job, but for what its workload makes longer, seconds.
JOB_S = 3600.0
#: Whose artifact and runner a launch runs.
Arm = Literal["candidate", "baseline"]


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
    #: What a window lasts at least, milliseconds: less work is repeated inside it.
    window_ms: int = 0


@dataclass(frozen=True, slots=True)
class Generate:
    """Greedy continuation of a prompt."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    #: The prompt as text, for runners that read the tokenizer themselves.
    text: str = ""
    #: A line for each token when it is chosen; farm's own runners only.
    stream: bool = False


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What one process start of the runner has to do."""

    #: Threads of the pool; 0 lets the runner choose (performance cores).
    threads: int
    tokens: tuple[int, ...] = ()
    passes: tuple[LogitsPass, ...] = ()
    generate: Generate | None = None
    measures: tuple[Measure, ...] = ()
    #: Windows that are traced in place of timed ones.
    profiles: tuple[Measure, ...] = ()
    #: Texts of about so many tokens, to measure with where a runner takes no ids.
    texts: tuple[tuple[int, str], ...] = ()
    affinity: str = "auto"
    #: Order-only perturbation of custom SDPA; 0 is the normal order.
    sdpa_order: int = 0
    #: XNNPACK uses no code beyond it (`avx2`, `avx`, `sse`); empty: the best that the CPU has.
    xnnpack_isa: str = ""
    timeout_s: float = 600.0
    #: Put the program's files out of the page cache first, unless they have just arrived.
    cold: bool = False
    arm: Arm = "candidate"
    #: Each window waits for its turn with those of the other arm.
    turns: bool = False
    #: In which form its logits come; `auto`: in the compact one over a slow link.
    logits: LogitsForm = "whole"


@dataclass(frozen=True, slots=True)
class Hello:
    """How a runner introduces itself."""

    protocol: int
    version: str
    abi: str
    isa: str
    backends: tuple[str, ...]
    #: Operators and whose code does them, `llama::custom_sdpa.out=farm`.
    kernels: tuple[str, ...]
    #: What the CPU has that backends choose their code by; empty where a runner doesn't tell.
    features: tuple[str, ...] = ()
    #: Whether its windows can wait for their turn with those of another process.
    turns: bool = False

    @property
    def own_code(self) -> tuple[str, ...]:
        """What farm's code does in place of ExecuTorch's."""
        return tuple(name.removesuffix("=farm") for name in self.kernels if name.endswith("=farm"))


@dataclass(frozen=True, slots=True)
class Chosen:
    """Tokens that a timed window chose, each the most likely one."""

    #: What a decode without a prefill begins with; chosen before the window.
    begins: int
    #: By the first pass: after its prefill, then for each decoded token.
    ids: tuple[int, ...]
    #: Place of the first choice that another pass made otherwise; None where all agree.
    odd: int | None = None


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
    arm: Arm = "candidate"
    #: How often the window did what its measure asks for.
    passes: int = 1
    #: Instructions of all its threads in user space; None where nobody counted them.
    instructions: int | None = None
    #: What it chose; None where the runner doesn't tell.
    chosen: Chosen | None = None


@dataclass(frozen=True, slots=True)
class ProfileRef:
    """The trace of one window, an ETDump."""

    #: Name of the window.
    name: str
    object: ObjectRef
    tokens: int


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
    #: The answer of a runner that gives text instead of ids.
    text: str | None = None
    #: How its figures came about, where that isn't farm's own way; added to definitions.
    definition: str = ""
    #: False where a runner cuts its own prompts: counts are as it reports them.
    exact_counts: bool = True
    #: As the site brought it about; None where that could not be told.
    regime: Regime | None = None
    arm: Arm = "candidate"
    #: Traces of windows: files of the output folder, in a job's result objects of the store.
    profiles: tuple[ProfileRef, ...] = ()
    #: Both arms were loaded at once, under one number, and their windows took turns.
    in_turn: bool = False
    #: Why its instructions were not counted; empty where they were.
    uncounted: str = "the runner doesn't count them"


@dataclass(frozen=True, slots=True)
class LaunchPolicy:
    """Launches that are repeated until what they show is enough; see farm.core.rules.stopping."""

    #: Launches of one round, in order: one, or A B B A.
    block: tuple[LaunchRequest, ...]
    #: Launches of the candidate, at least and at most.
    least: int
    most: int
    #: No round begins that would probably end after this much time in launches, seconds.
    budget_s: float
    #: Relative half width that every rate's interval must get below; None: nobody asks for one.
    precision: float | None
    #: Largest accepted loss: what the ratio to a baseline arm must be told from.
    regress: float
    #: Metric name and bound of gates on a rate: no interval may hold its bound.
    bounds: tuple[tuple[str, float], ...] = ()
    #: Whether a loss is to be confirmed: no loss, however sure, ends the rounds before their time.
    confirms: bool = False
    #: Whether a gate or a required share judges speeds: their scatter has to be told from noise.
    judged: bool = True

    @property
    def asks(self) -> bool:
        """Whether anybody asks for more than the least number of launches."""
        return self.paired or self.judged or bool(self.bounds) or self.precision is not None

    @property
    def paired(self) -> bool:
        """Whether a block has both arms."""
        return any(request.arm == "baseline" for request in self.block)

    @property
    def per_block(self) -> int:
        """Launches of the candidate in one block that time one and the same metric."""
        first = self.block[0].measures[0]
        return sum(r.arm == "candidate" and first in r.measures for r in self.block)


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a cell got no more launches."""

    reason: Literal["precise", "budget", "most", "fixed"]
    #: One sentence for people.
    detail: str

    @property
    def looked(self) -> bool:
        """Whether the number of launches was chosen by looking at what they gave."""
        return self.reason != "fixed"


@dataclass(frozen=True, slots=True)
class BaselineArm:
    """What a cell's baseline ran, to be measured again beside the candidate."""

    run_id: str
    artifact: tuple[DeployFile, ...]
    runner: RunnerBuild
    #: Measure it also where it is the candidate, file by file: the gate is what is tried then.
    even_if_same: bool = False


@dataclass(frozen=True, slots=True)
class SustainedLaunch:
    """A launch that decodes without a pause, after all others of a job."""

    #: With the one measure that is repeated; how often is found out on the device.
    request: LaunchRequest
    #: About so long.
    seconds: float


@dataclass(frozen=True, slots=True)
class SustainedRun:
    """What came of such a launch."""

    #: None where it could not be made.
    launch: LaunchResult | None
    telemetry: LaunchTelemetry | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CanaryLaunch:
    """A check of the kernels in a device job: a file in the work folder, and what it is asked."""

    file: DeployFile
    request: LaunchRequest


@dataclass(frozen=True, slots=True)
class AttemptId:
    """Names one submission of a job: no other, of any run, has the same."""

    run_id: str
    #: Grows with each resume of the run.
    epoch: int
    job_id: str
    #: Counts submissions within the epoch, from 1; those that only met a held device too.
    attempt: int


@dataclass(frozen=True, slots=True)
class DeviceJob:
    """One attempt's work for one device, as the controller submits it to a site."""

    job_id: str
    attempt: int
    epoch: int
    run_id: str
    cell_id: str
    device: str
    runner: RunnerSpec
    #: Program first; external weights after it.
    artifact: tuple[DeployFile, ...]
    launches: tuple[LaunchRequest, ...]
    #: For runners that tokenise on the device.
    tokenizer: DeployFile | None = None
    #: Bytes of RAM the artifact is expected to need; 0 when unknown.
    ram_need_bytes: int = 0
    timeout_s: float = JOB_S
    #: Runs before everything else; None where the runner can't give its logits.
    canary: CanaryLaunch | None = None
    #: Runs after it: one layer of the artifact; None where there is none to run alone.
    replay: CanaryLaunch | None = None
    toolchain: str = ""
    #: What the runner is to be built against.
    sdk: Sdk = field(default_factory=Sdk)
    #: More launches after `launches`, as many as are needed.
    policy: LaunchPolicy | None = None
    #: None: `launches` and `policy` name the candidate only.
    baseline: BaselineArm | None = None
    #: Of its run: of the jobs that wait for one device the greatest goes first.
    priority: int = 0
    #: Comes last; None where the workload asks for none.
    sustained: SustainedLaunch | None = None
    #: After everything: a launch for each prompt that people read the answer of, or why none.
    asked: tuple[LaunchRequest | str, ...] = ()

    @property
    def attempt_id(self) -> AttemptId:
        """What every event of this job carries."""
        return AttemptId(self.run_id, self.epoch, self.job_id, self.attempt)

    @property
    def checks(self) -> dict[str, CanaryLaunch]:
        """Launches that check the kernels before everything else, by name and in order."""
        named = {"canary": self.canary, "replay": self.replay}
        return {name: launch for name, launch in named.items() if launch is not None}

    @property
    def own_files(self) -> tuple[DeployFile, ...]:
        """What the job deploys besides the files of its runner."""
        words = () if self.tokenizer is None else (self.tokenizer,)
        return (*self.artifact, *words, *(check.file for check in self.checks.values()))


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
    #: Of each timed launch: how warm the device was at its start, and what it said meanwhile.
    starts: tuple[Start, ...] = ()
    telemetry: tuple[LaunchTelemetry, ...] = ()
    #: What fixed work took in the device's earlier jobs.
    usual: Usual = NOTHING_USUAL
    #: None where the number of launches was fixed.
    stop: Stop | None = None
    #: True when the baseline arm is the candidate, file by file: it wasn't measured again.
    same_as_baseline: bool = False
    #: Why the baseline arm gave no measurement; empty when it did, or wasn't asked for.
    unpaired: str = ""
    canary: LaunchResult | None = None
    replay: LaunchResult | None = None
    sustained: SustainedRun | None = None
    #: For each prompt its launch, or why there is none.
    asked: tuple[LaunchResult | str, ...] = ()
