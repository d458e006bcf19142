"""The launches that check a deployed version on its device, and their verdict.

They are a device job like any other, with the very runner of the validated run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from farm.core.artifact import CanaryProgram, LogitsPass, LogitsRef, Sdk
from farm.core.deployment import MANIFEST, Manifest
from farm.core.device import DeviceFacts
from farm.core.result import GateResult
from farm.core.rules.launches import canary_launch
from farm.core.runner import PLAIN, BuildVariant, DeployFile, RunnerBuild, RunnerSpec, WorkFiles
from farm.core.runtime import DeviceJob, DeviceRunResult, Generate, LaunchRequest, LaunchResult
from farm.judge.canary import launch_error
from farm.judge.deployed import rate_gate, smoke_gates
from farm.judge.logits import Matrix, open_logits
from farm.protocols import Runner, TextProgress
from farm.store.objects import ContentStore

#: Name of the pass over the validated answer.
_FORCED = "answer"
_LAUNCH_S = 600.0


@dataclass(frozen=True, slots=True)
class Smoke:
    """What a check found."""

    gates: tuple[GateResult, ...]
    pushed_bytes: int
    #: Median of the rate that was timed, tok/s; None where none was.
    rate_tok_s: float | None = None

    #: What nobody can judge, and was deployed unverified on purpose.
    excused: tuple[str, ...] = ()

    @property
    def failure(self) -> str:
        """Why it doesn't pass, what couldn't be judged included; empty when it does."""
        bad = [gate for gate in self.gates if not gate.passed]
        return "; ".join(
            f"{gate.metric}: {gate.reason or gate.text}"
            for gate in bad
            if gate.passed is False or gate.metric not in self.excused
        )


class PinnedRunner:
    """A runner whose build is given: what was validated, whatever would be built today."""

    def __init__(self, runner: Runner, build: RunnerBuild, store: ContentStore) -> None:
        self.name = runner.name
        self.greeting = runner.greeting
        self._runner, self._build, self._store = runner, build, store

    def build(
        self,
        abi: str,
        facts: DeviceFacts,
        home: Path,
        sdk: Sdk,
        progress: TextProgress | None = None,
        variant: BuildVariant = PLAIN,
    ) -> RunnerBuild:
        """Return the given build."""
        del abi, facts, home, sdk, progress, variant
        return self._build

    def files(self, build: RunnerBuild) -> Mapping[str, Path]:
        """Places of its files in the store of this host."""
        return {f.object.sha256: self._store.path(f.object) for f in build.files}

    def arguments(
        self, request: LaunchRequest, files: WorkFiles
    ) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
        """As the runner's own."""
        return self._runner.arguments(request, files)

    def parse(self, stdout: bytes, launch: int, request: LaunchRequest) -> LaunchResult:
        """As the runner's own."""
        return self._runner.parse(stdout, launch, request)

    def progress(self, line: bytes) -> tuple[str, int, int] | None:
        """As the runner's own."""
        return self._runner.progress(line)

    def rate(self, line: bytes) -> tuple[str, float] | None:
        """As the runner's own."""
        return self._runner.rate(line)


def smoke_job(
    manifest: Manifest,
    runner: RunnerSpec,
    canary: CanaryProgram,
    device: str,
    run_id: str,
    epoch: int,
    *,
    timed: bool,
) -> DeviceJob:
    """Return the job that checks a version on a device.

    Args:
        manifest: The version.
        runner: How its runner is described.
        canary: What checks the kernels.
        device: The device.
        run_id: Whose lease it takes.
        epoch: Of that lease.
        timed: Whether the rate of the validated run is timed too.
    """
    launches = [_check(manifest)]
    if timed and manifest.rate is not None:
        measures = (manifest.rate.measure,)
        launches.append(LaunchRequest(manifest.threads, measures=measures, timeout_s=_LAUNCH_S))
    by_path = {file.path: file for file in manifest.files}
    what = "health" if timed else "smoke"
    return DeviceJob(
        job_id=f"{what}:{manifest.name}:{manifest.version}:{device}",
        attempt=1,
        epoch=epoch,
        run_id=run_id,
        cell_id=f"deploy:{manifest.name}:{device}",
        device=device,
        runner=runner,
        artifact=tuple(by_path[path] for path in (manifest.program, *manifest.data)),
        launches=tuple(launches),
        tokenizer=None if manifest.tokenizer is None else by_path[manifest.tokenizer],
        ram_need_bytes=manifest.ram_need_bytes,
        canary=canary_launch(canary, threads=manifest.threads),
    )


def judged(
    manifest: Manifest,
    run: DeviceRunResult,
    canary: CanaryProgram,
    store: ContentStore,
    *,
    timed: bool,
) -> Smoke:
    """Judge what came of a smoke job.

    Raises:
        StoreError, BadOutput: Logits are missing, or not what the runner said.
    """

    def opened(ref: LogitsRef) -> Matrix:
        return open_logits(store.path(ref.object), ref)

    error = None if run.canary is None else launch_error(canary, run.canary, opened)
    forced = _forced(manifest, run.launches[0], opened) if run.launches else None
    gates = smoke_gates(manifest, run.launches, error, forced)
    rate = None
    if timed and manifest.rate is not None:
        gate = rate_gate(manifest.rate, run.launches[1:])
        gates.append(gate)
        rate = gate.value
    # Only what nothing was validated by; that it ran and computes right is asked of all.
    unanswered = bool(manifest.provenance.unverified) and manifest.answer is None
    ran = bool(run.launches) and run.launches[0].generated is not None
    excused = ("answer",) if unanswered and ran else ()
    return Smoke(tuple(gates), run.deployed.pushed_bytes, rate, excused)


def with_manifest(manifest: Manifest, file: DeployFile) -> tuple[DeployFile, ...]:
    """Return all files of a version's folder."""
    return (*manifest.files, replace(file, path=MANIFEST))


def _check(manifest: Manifest) -> LaunchRequest:
    """The launch that asks for the validated answer, exactly as the run asked."""
    asked = manifest.answer
    if asked is None:
        # Nothing to compare with; that it runs at all is seen all the same.
        probe = Generate((manifest.chat.bos_id or 0,), 4, manifest.chat.stop_ids)
        return LaunchRequest(manifest.threads, generate=probe, timeout_s=_LAUNCH_S)
    generate = Generate(asked.prompt, asked.max_new_tokens, asked.stop_ids)
    if asked.bit_equal or not asked.ids:
        return LaunchRequest(manifest.threads, generate=generate, timeout_s=_LAUNCH_S)
    forced = LogitsPass(_FORCED, (len(asked.prompt), *(1,) * (len(asked.ids) - 1)))
    return LaunchRequest(
        manifest.threads,
        tokens=(*asked.prompt, *asked.ids),
        passes=(forced,),
        generate=generate,
        timeout_s=_LAUNCH_S,
    )


def _forced(
    manifest: Manifest, launch: LaunchResult, opened: Callable[[LogitsRef], Matrix]
) -> Matrix | None:
    ref = dict(launch.logits).get(_FORCED)
    return None if ref is None or manifest.answer is None else opened(ref)
