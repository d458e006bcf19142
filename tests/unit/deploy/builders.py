"""A small complete manifest for tests."""

from __future__ import annotations

from farm.core.artifact import ObjectRef
from farm.core.deployment import Answer, ChatFormat, Manifest, Provenance
from farm.core.runner import DeployFile, RunnerBuild


def ref(name: str) -> ObjectRef:
    return ObjectRef((name.encode().hex() * 64)[:64], len(name), name)


def manifest(version: str = "v1", unverified: str = "") -> Manifest:
    program = DeployFile(ref("model.pte"), "model.pte")
    runner = DeployFile(ref("farm-runner"), "farm-runner", executable=True)
    return Manifest(
        schema=1,
        name="kiosk",
        version=version,
        model="m",
        recipe="r",
        toolchain="default",
        backend="xnnpack",
        threads=2,
        max_context=64,
        files=(program, runner),
        program="model.pte",
        data=(),
        tokenizer=None,
        runner=RunnerBuild("executorch", "1", "x86_64", "s" * 64, (runner,), ("./farm-runner",)),
        chat=ChatFormat(None, 1, True, "<s>", "</s>", (2,)),
        answer=Answer((1, 5), (7, 8), 8, (2,), bit_equal=True),
        rate=None,
        no_rate="the run timed no decode",
        ram_need_bytes=1 << 20,
        provenance=Provenance(
            "run", "m/r:executorch:a", "f" * 64, "c" * 64, "passed", (), None, "1", "t" * 64,
            "ann@desk", "2026-01-02T03:04:05Z", unverified,
        ),
    )  # fmt: skip
