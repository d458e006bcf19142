"""A finished device run of a small made-up model, with knobs for what can go wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from farm.core.artifact import (
    Bundle,
    CanaryProgram,
    Delegation,
    ExportResult,
    LogitsRef,
    ModelMetadata,
    ObjectRef,
    Recipe,
    TensorCheck,
    ToolchainVersions,
)
from farm.core.device import Device, DeviceEntry, DeviceFacts
from farm.core.hostrun import HostRunResult, NoiseFloor
from farm.core.judgement import Judgement
from farm.core.reference import ReferenceResult, SourceCheck
from farm.core.result import PerformanceReport
from farm.core.rules.launches import logits_passes
from farm.core.runner import OWN, RunnerBuild
from farm.core.runtime import Deployed, DeviceRunResult, Hello, LaunchResult, Sample
from farm.core.spec import Correctness, Gate, RunSpec, Workload
from farm.core.tasks import CompareTask
from farm.core.telemetry import Calibration, ClockRange, CoreSpeed, LaunchTelemetry, Start
from farm.judge.cell import judge_cell
from farm.judge.correctness import EVERY_PATH, StageLogits
from farm.judge.logits import Logits, Matrix, every_position

VOCABULARY = 300
TOKENS = 128
RECIPE = Recipe(name="xnnpack-8da4w", linear="8da4w", group_size=32)
WORKLOAD = Workload(prefill=(64,), decode=(32,))
CORRECTNESS = Correctness(tokens=TOKENS)
TEXT = "The capital of France is Paris. It lies on the river Seine."
#: An independent source that agrees.
SOURCE = SourceCheck("anchor", 48, ids_equal=True, max_abs_error=1e-5)


def obj(name: str) -> ObjectRef:
    return ObjectRef(name.encode().hex().ljust(64, "0")[:64], 1000, name)


def bundle(backend: str = "xnnpack") -> Bundle:
    metadata = ModelMetadata(VOCABULARY, 2, 1000, 512, 512, 1, (2,))
    return Bundle(
        "key", "m", RECIPE.name, "default", obj("model.pte"), None, None, None, metadata, backend
    )


def hello(*features: str) -> Hello:
    kernels = ("llama::custom_sdpa.out",)
    return Hello(1, "0.1.0", "x86_64", "avx2", ("XnnpackBackend",), kernels, features)


def build(sha256: str = "a" * 64) -> RunnerBuild:
    return RunnerBuild("executorch", "0.1.0", "x86_64", sha256, (), ("./farm-runner",))


def launch(
    number: int,
    *,
    prefill_s: float = 0.2,
    decode_s: float = 0.4,
    load_s: float = 0.25,
    tokens: int = 32,
    repetitions: int = 3,
    noise: float = 0.01,
) -> LaunchResult:
    random = np.random.default_rng(number)
    samples = []
    for rep in range(-1, repetitions):
        shake = 1 + noise * float(random.standard_normal())
        warmup = rep < 0
        samples.append(
            Sample("pp64", number, rep, warmup, 64, prefill_s * shake, prefill_s * shake, (), 1.0)
        )
        step = decode_s * shake / tokens
        samples.append(
            Sample(
                "tg32", number, rep, warmup, tokens, decode_s * shake, None, (step,) * tokens, 2.0
            )
        )
    return LaunchResult(
        hello(),
        tuple(samples),
        (),
        None,
        None,
        133_000_000 + number,
        load_s,
        2,
        "0-1",
        backends=("XnnpackBackend",),
        regime="warm",
    )


def check_launch() -> LaunchResult:
    logits = tuple((name, LogitsRef(obj(name), 1, VOCABULARY)) for name in ("decode", "prefill"))
    return LaunchResult(
        hello(),
        (),
        logits,
        (5, 6),
        "length",
        140_000_000,
        0.3,
        2,
        "0-1",
        backends=("XnnpackBackend",),
    )


def calibration(unit_ns: int = 2_500_000, **changes: object) -> Calibration:
    base = Calibration((CoreSpeed(0, unit_ns), CoreSpeed(1, unit_ns)), 1.0, 0.0)
    return replace(base, **changes)  # type: ignore[arg-type]


def telemetry(launch: int = 1, /, **changes: object) -> LaunchTelemetry:
    """A launch on a device that is cool, quiet, and tells everything."""
    base = LaunchTelemetry(
        launch=launch,
        samples=10,
        seconds=5.0,
        cost=0.001,
        clocks=(ClockRange("policy0", 2_000_000, 2_000_000),),
        before=calibration(),
        after=calibration(),
        throttled=0,
        throttled_s=0.0,
        steal=0.0,
        others=0.02,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def start(launch: int = 1, /, **changes: object) -> Start:
    base = Start(launch, 0.0, "", blind=False, thermal_status=0)
    return replace(base, **changes)  # type: ignore[arg-type]


def run_of(*said: LaunchTelemetry, starts: tuple[Start, ...] | None = None) -> DeviceRunResult:
    found = tuple(start(one.launch) for one in said) if starts is None else starts
    return DeviceRunResult(
        build(), (), Deployed(0, 0, 0.1), starts=found, telemetry=said or (telemetry(),)
    )


def facts(**changes: object) -> DeviceFacts:
    base = DeviceFacts(identity="id-1", abi="x86_64", os="Debian GNU/Linux 12", cores=2)
    return replace(base, **changes)  # type: ignore[arg-type]


def softmax(values: Matrix) -> Matrix:
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    result: Matrix = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def language(seed: int = 0, sharpness: float = 4.0) -> tuple[Matrix, tuple[int, ...]]:
    """Logits [TOKENS, VOCABULARY] of a model that knows its text, and that text."""
    random = np.random.default_rng(seed)
    logits = (sharpness * random.standard_normal((TOKENS, VOCABULARY))).astype(np.float32)
    probabilities = softmax(logits)
    tokens = [0]
    for row in range(TOKENS - 1):
        p = probabilities[row].astype(np.float64)
        tokens.append(int(random.choice(VOCABULARY, p=p / p.sum())))
    return logits, tuple(tokens)


def disturbed(logits: Matrix, size: float, seed: int = 1) -> Matrix:
    noise = np.random.default_rng(seed).standard_normal(logits.shape)
    return (logits + size * noise).astype(np.float32)


CANARY = CanaryProgram(obj("canary.pte"), (0, 1, 2), LogitsRef(obj("expected"), 3, 5))


@dataclass(slots=True)
class Case:
    """A healthy run; tests change one thing and judge."""

    fp32: Matrix = field(default_factory=lambda: language()[0])
    tokens: tuple[int, ...] = field(default_factory=lambda: language()[1])
    quantised: Matrix | None = None
    host: Matrix | None = None
    device: Matrix | None = None
    device_facts: DeviceFacts = field(default_factory=facts)
    entry: DeviceEntry = field(default_factory=lambda: DeviceEntry("local", "local"))
    gates: tuple[Gate, ...] = ()
    launches: tuple[LaunchResult, ...] = field(
        default_factory=lambda: (check_launch(), launch(1), launch(2), launch(3))
    )
    host_sha: str = "a" * 64
    host_features: tuple[str, ...] = ()
    noise_floor: NoiseFloor | None = field(
        default_factory=lambda: NoiseFloor((("decode", 0.03), ("prefill", 0.03)), 4)
    )
    delegation: Delegation | None = field(default_factory=lambda: Delegation(90, 100))
    has_host: bool = True
    host_error: str = ""
    pushed_bytes: int = 0
    has_canary: bool = True
    weights: tuple[TensorCheck, ...] = (TensorCheck("norm.weight", None, error=0.0, gain=1.0),)
    telemetry: tuple[LaunchTelemetry, ...] = field(
        default_factory=lambda: tuple(telemetry(number) for number in (1, 2, 3))
    )

    def task(self) -> CompareTask:
        spec = RunSpec("test", (), (), workload=WORKLOAD, correctness=CORRECTNESS, gates=self.gates)
        export = ExportResult(
            bundle(),
            ToolchainVersions("3.11", "2", "1", "0"),
            1.0,
            1.0,
            1,
            self.delegation,
            weights=self.weights,
        )
        run = DeviceRunResult(
            build(),
            self.launches,
            Deployed(self.pushed_bytes, 0, 0.1),
            conditions=(("niceness", "0"),),
            starts=tuple(start(one.launch) for one in self.telemetry),
            telemetry=self.telemetry,
            canary=check_launch() if self.has_canary else None,
        )
        host = HostRunResult(build(self.host_sha), hello(*self.host_features), (), self.noise_floor)
        return CompareTask(
            task_id="compare",
            spec=spec,
            device=Device(self.entry, self.device_facts),
            threads=0,
            runner=OWN,
            recipe=RECIPE,
            export=export,
            reference=ReferenceResult(self.tokens, (), (2,), None, None, source=SOURCE),
            host=host if self.has_host else None,
            run=run,
            host_error=self.host_error,
            canary=CANARY if self.has_canary else None,
        )

    def logits(self) -> StageLogits:
        quantised = disturbed(self.fp32, 0.3, 2) if self.quantised is None else self.quantised
        host = disturbed(quantised, 0.1, 3) if self.host is None else self.host
        device = host if self.device is None else self.device
        passes = {p.name: p.positions for p in logits_passes(CORRECTNESS, WORKLOAD)}
        stages: dict[str, dict[str, Logits]] = {
            "eager_fp32": {EVERY_PATH: every_position(self.fp32)},
            "eager_quantised": {EVERY_PATH: every_position(quantised)},
        }
        runs = {"host_pte": host, "device_pte": device}
        if not self.has_host:
            del runs["host_pte"]
        for stage, matrix in runs.items():
            stages[stage] = {
                name: Logits(matrix[list(positions)], positions)
                for name, positions in passes.items()
            }
        return stages


def judge(case: Case, text: str | None = TEXT) -> Judgement:
    return judge_cell(case.task(), case.logits(), generated_text=text)


def metric(judgement: Judgement, name: str, regime: str = "warm") -> PerformanceReport:
    return next(p for p in judgement.performance if (p.metric, p.regime) == (name, regime))
