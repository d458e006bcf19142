"""Small complete core values for tests: every field filled, names that read well."""

from __future__ import annotations

from farm.core.artifact import (
    Bundle,
    CanaryProgram,
    Delegation,
    ExportResult,
    LayerReplay,
    LogitsRef,
    ModelMetadata,
    ModelSource,
    ObjectRef,
    Recipe,
    Toolchain,
    ToolchainVersions,
)
from farm.core.device import Device, DeviceEntry, DeviceFacts
from farm.core.hostrun import HostRunResult
from farm.core.judgement import Judgement
from farm.core.plan import Catalog, Plan, make_plan
from farm.core.reference import ReferenceResult, Tokenized
from farm.core.result import EnergyReport, MemoryReport
from farm.core.runner import DeployFile, RunnerBuild, RunnerSpec
from farm.core.runtime import AttemptId, Deployed, DeviceRunResult, Hello
from farm.core.spec import Correctness, DeviceRequest, Matrix, RunSpec


def ref(name: str, size: int = 10) -> ObjectRef:
    return ObjectRef(sha256=(name.encode().hex() * 64)[:64], size_bytes=size, name=name)


def device(name: str, *, transport: str = "adb", alive: bool = True, abi: str = "x86_64") -> Device:
    facts = DeviceFacts(identity=f"id-{name}", abi=abi, os="Linux 1", cores=2, ram_bytes=8 << 30)
    return Device(
        entry=DeviceEntry(name=name, transport=transport),
        facts=facts if alive else None,
        state="ready" if alive else "offline",
        reason="" if alive else "no answer",
    )


def run_spec(
    *,
    recipes: tuple[str, ...] = ("r1",),
    requests: tuple[DeviceRequest, ...] = (DeviceRequest(""),),
    canary: bool = False,
) -> RunSpec:
    return RunSpec(
        name="test",
        models=(ModelSource("m1"),),
        toolchains=(Toolchain("default"),),
        matrix=Matrix(recipe=recipes),
        devices=requests,
        correctness=Correctness(canary=canary),
    )


def catalog(spec: RunSpec) -> Catalog:
    return Catalog(
        models={model.name: model for model in spec.models},
        recipes={name: Recipe(name) for name in spec.matrix.recipe},
        toolchains={toolchain.name: toolchain for toolchain in spec.toolchains},
        runners={name: RunnerSpec(name) for name in spec.matrix.runner},
    )


def plan(spec: RunSpec, *devices: Device) -> Plan:
    return make_plan(spec, devices, catalog(spec))


def bundle(recipe: str = "r1") -> Bundle:
    return Bundle(
        key=f"key-{recipe}",
        model="m1",
        recipe=recipe,
        toolchain="default",
        pte=ref("model.pte", 1000),
        data=None,
        tokenizer=ref("tokenizer.json"),
        chat_template=None,
        metadata=ModelMetadata(
            vocab_size=8,
            layers=1,
            parameters=100,
            max_context=512,
            max_seq=512,
            bos_id=1,
            stop_ids=(2,),
        ),
        backend="xnnpack",
    )


def export_result(recipe: str = "r1", *, cache_hit: bool = False) -> ExportResult:
    return ExportResult(
        bundle=bundle(recipe),
        versions=ToolchainVersions("3.11", "2.13", "1.5.1", "0.18"),
        seconds=1.0,
        cpu_s=1.0,
        peak_rss_bytes=1,
        delegation=Delegation(1, 2),
        cache_hit=cache_hit,
        replay=layer_replay(),
    )


def layer_replay() -> LayerReplay:
    matrices = (LogitsRef(ref(name), 7, 4) for name in ("inputs.f32", "added.f32"))
    return LayerReplay("key", 0, ref("replay.pte"), *matrices)


def reference_result() -> ReferenceResult:
    return ReferenceResult(
        tokens=tuple(range(8)) * 32,
        prompt=(1, 2, 3),
        stop_ids=(2,),
        eager_fp32=None,
        eager_quantised=None,
    )


def tokenized() -> Tokenized:
    return reference_result().tokenized


def canary_program() -> CanaryProgram:
    return CanaryProgram(ref("canary.pte"), (1, 2, 3), LogitsRef(ref("expected.f32"), 3, 8))


HELLO = Hello(protocol=1, version="1", abi="x86_64", isa="avx2", backends=(), kernels=())
BUILD = RunnerBuild(
    name="executorch", version="1", abi="x86_64", sha256="0" * 64, files=(), argv=("./farm-runner",)
)


def host_result() -> HostRunResult:
    return HostRunResult(runner=BUILD, hello=HELLO, logits=(), noise_floor=None)


def attempt_id(job_id: str, attempt: int = 1) -> AttemptId:
    return AttemptId("run", 1, job_id, attempt)


def run_result() -> DeviceRunResult:
    return DeviceRunResult(runner=BUILD, launches=(), deployed=Deployed(10, 0, 0.1))


def judgement(outcome: str = "passed") -> Judgement:
    assert outcome in ("passed", "failed", "inconclusive")
    return Judgement(
        outcome=outcome,  # type: ignore[arg-type]
        reason="",
        flags=(),
        correctness=None,
        performance=(),
        memory=MemoryReport(None),
        energy=EnergyReport(None),
        conditions={},
    )


def files(*names: str) -> tuple[DeployFile, ...]:
    return tuple(DeployFile(ref(name), name) for name in names)
