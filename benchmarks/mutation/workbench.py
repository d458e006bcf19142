"""A healthy model on this host, and what judging makes of it when one thing in it is wrong.

Export, eager references, canary and noise floor are farm's own and are kept in a FARM_HOME; runners
are started here, without a device's transport, which has no part in what is judged.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

import runners
from benchmarks.method.link import BareLink
from farm import transports
from farm.core.artifact import (
    CanaryProgram,
    ExportRequest,
    ExportResult,
    LayerReplay,
    LogitsRef,
    ModelSource,
    ObjectRef,
    Sdk,
    StageEvent,
    Toolchain,
)
from farm.core.device import Device, DeviceEntry, DeviceFacts
from farm.core.hostrun import HostRunResult, NoiseFloor
from farm.core.judgement import Judgement
from farm.core.lease import LeaseOwner
from farm.core.reference import ReferenceRequest, ReferenceResult
from farm.core.rules.launches import (
    canary_launch,
    logits_passes,
    replay_launch,
    text_lengths,
)
from farm.core.runner import OWN, RunnerBuild, WorkFiles
from farm.core.runtime import Deployed, DeviceRunResult, Generate, LaunchRequest, LaunchResult
from farm.core.spec import Correctness, RunSpec, Workload
from farm.core.tasks import CanaryTask, CompareTask, ExportTask, ReferenceTask
from farm.judge.canary import canary_error
from farm.judge.cell import judge_cell, stage_logits
from farm.judge.floor import noise_floor
from farm.judge.logits import Logits, Matrix, open_logits, open_some
from farm.judge.replay import layer_cosine
from farm.paths import model_cache, store_root
from farm.site.device.connection import Connection
from farm.site.job.logits import fetch_logits
from farm.store.objects import ContentStore
from farm.tasks import worker_process
from farm.tasks.canary import make_canary
from models.checkpoint import Checkpoint
from models.lowering.written import Written
from models.recipes import RECIPES
from models.sources import open_source
from models.tokenizer import Tokenizer

#: Orders of sums behind the noise floor.
ORDERS = (1, 2, 3, 4)
#: With these lengths the references of a run that says nothing else are found again.
_WORKLOAD = Workload(prefill=(128,), decode=(64,))
_NEW_TOKENS, _PROMPT = 24, "Once upon a time"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a stage ran: an artifact, in a build of the runner."""

    pte: Path
    build: RunnerBuild


@dataclass(frozen=True, slots=True)
class Stages:
    """What one cell is judged by; a fault replaces some of it."""

    export: ExportResult
    reference: ReferenceResult
    host: LaunchResult
    device: LaunchResult
    canary: LaunchResult | None
    replay: LaunchResult | None
    #: The device has another CPU: its bits need not be the host's.
    other_cpu: bool = False
    #: What host and device ran; None: the healthy artifact in the healthy build.
    host_ran: Ran | None = None
    device_ran: Ran | None = None


class Workbench:
    """One model in one recipe."""

    def __init__(
        self, home: Path, model: str, recipe: str, tokens: int, *, compact: bool = False
    ) -> None:
        """Make what a healthy cell consists of, or take it from `home`.

        Args:
            home: FARM_HOME.
            model: Its name in the registry.
            recipe: Its recipe.
            tokens: Of the built-in text.
            compact: The device's logits come as over a slow link.
        """
        self.home, self.recipe, self.compact = home, RECIPES[recipe], compact
        self.source = ModelSource(model)
        self.store = ContentStore(store_root(home))
        self.spec = RunSpec(
            "mutations",
            (),
            (),
            workload=_WORKLOAD,
            correctness=Correctness(tokens=tokens, prompt=_PROMPT),
        )
        self.passes = logits_passes(self.spec.correctness, _WORKLOAD)
        self.checkpoint: Checkpoint = open_source(self.source, model_cache(home), _silent)
        self._stop = threading.Event()
        self._files: dict[str, Path] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="farm-mutations-")
        self.folder = Path(self._scratch.name)
        self.facts = self._facts()
        self.build = self.built()
        export = worker_process.export(
            ExportTask("export", ExportRequest(self.source, self.recipe, Toolchain("default"))),
            home,
            _quiet,
            self._stop,
        )
        self.request = self._reference_request(export)
        reference = worker_process.reference(
            ReferenceTask("reference", self.request), home, _quiet, self._stop
        )
        self.canary: CanaryProgram = make_canary(CanaryTask("canary"), home, _quiet, self._stop)
        self.healthy = self._healthy(export, reference)
        self.floor: NoiseFloor | None = self._floor()

    def close(self) -> None:
        """Remove what was written beside FARM_HOME."""
        self._scratch.cleanup()

    @property
    def pte(self) -> Path:
        """The healthy artifact."""
        return self.store.path(self.healthy.export.bundle.pte)

    @cached_property
    def written(self) -> Written:
        """The healthy artifact, read back."""
        return Written(self.pte)

    def built(self) -> RunnerBuild:
        """Build the runner from its sources as they are now."""
        runner = runners.find()
        build = runner.build(self.facts.abi, self.facts, self.home, Sdk())
        self._files |= dict(runner.files(build))
        return build

    def check(
        self,
        pte: Path,
        build: RunnerBuild | None = None,
        *,
        reference: ReferenceResult | None = None,
        isa: str = "",
        order: int = 0,
    ) -> LaunchResult:
        """Run the check of correctness."""
        reference = reference or self.healthy.reference
        request = LaunchRequest(
            threads=0,
            tokens=reference.tokens,
            passes=self.passes,
            generate=Generate(reference.prompt, _NEW_TOKENS, reference.stop_ids),
            sdpa_order=order,
        )
        return self.launch(pte, request, build, isa=isa)

    def run_canary(self, build: RunnerBuild | None = None, isa: str = "") -> LaunchResult:
        """Run the canary."""
        request = canary_launch(self.canary, threads=0).request
        return self.launch(self.store.path(self.canary.pte), request, build, isa=isa)

    def run_replay(
        self,
        replay: LayerReplay,
        build: RunnerBuild | None = None,
        *,
        isa: str = "",
        program: Path | None = None,
    ) -> LaunchResult:
        """Run the layer that is replayed."""
        request = replay_launch(replay, threads=0).request
        return self.launch(program or self.store.path(replay.pte), request, build, isa=isa)

    def launch(
        self, pte: Path, request: LaunchRequest, build: RunnerBuild | None = None, *, isa: str = ""
    ) -> LaunchResult:
        """Start a runner once."""
        build = build or self.build
        runner = runners.find()
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        for file in build.files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(self._files[file.object.sha256])
        (folder / "model.pte").symlink_to(pte)
        (folder / "out").mkdir()
        words, files = runner.arguments(request, WorkFiles("model.pte", out="out"))
        for name, content in files.items():
            (folder / name).write_bytes(content)
        environment = {**os.environ, **dict(build.env), **({"FARM_ISA": isa} if isa else {})}
        done = subprocess.run(
            [*build.argv, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=600,
            check=False,
        )
        result = runner.parse(done.stdout, 0, request)
        for _, ref in result.logits:
            self._files[ref.object.sha256] = folder / "out" / ref.object.name
        return result

    def eager(self, checkpoint: Checkpoint, *, quantised: bool, tokens: Sequence[int]) -> Matrix:
        """Eager logits of a checkpoint, which may be a faulty view of the healthy one."""
        from models.reference.logits import eager_logits

        target = self.folder / f"eager-{len(list(self.folder.iterdir()))}.f32"
        shape = eager_logits(checkpoint, self.recipe if quantised else None, tokens, target)
        return np.fromfile(target, "<f4").reshape(shape)

    def judge(self, stages: Stages) -> Judgement:
        """Judge as `farm run` does."""
        device = stages.device
        if stages.other_cpu:
            device = replace(device, hello=replace(device.hello, features=("another-cpu",)))
        if self.compact:
            device = self._in_part(device, stages)
        task = CompareTask(
            task_id="compare",
            spec=self.spec,
            device=Device(DeviceEntry("bench", "local"), self.facts),
            threads=0,
            runner=OWN,
            recipe=self.recipe,
            export=stages.export,
            reference=stages.reference,
            host=HostRunResult(self.build, stages.host.hello, stages.host.logits, self.floor),
            run=DeviceRunResult(
                self.build,
                (device,),
                Deployed(0, 0, 0.0),
                canary=stages.canary,
                replay=stages.replay,
            ),
            canary=self.canary,
        )
        text = None
        if device.generated is not None:
            text = Tokenizer(self.checkpoint.tokenizer).decode(device.generated)
        return judge_cell(
            task,
            stage_logits(task, lambda ref: open_some(self._path(ref), ref)),
            generated_text=text,
            canary=canary_error(task, self.open_ref),
            layer=layer_cosine(task, self.open_ref),
        )

    def with_eager(self, stages: Stages, fp32: Matrix, quantised: Matrix) -> Stages:
        """Other eager logits, with which host and device agree."""
        reference = replace(
            stages.reference,
            eager_fp32=self.keep(fp32, "fp32"),
            eager_quantised=self.keep(quantised, "quantised"),
        )
        logits = tuple(
            (one.name, self.keep(quantised[list(one.positions)], one.name)) for one in self.passes
        )
        launch = replace(stages.host, logits=logits)
        return replace(stages, reference=reference, host=launch, device=launch)

    def open_ref(self, ref: LogitsRef) -> Matrix:
        """Map an object of the store, or a file that a launch here wrote."""
        return open_logits(self._path(ref), ref)

    def _path(self, ref: LogitsRef) -> Path:
        return self._files.get(ref.object.sha256) or self.store.path(ref.object)

    def _in_part(self, device: LaunchResult, stages: Stages) -> LaunchResult:
        """The launch with logits in the compact form, but for those that the host gave too."""
        hosted = {ref.object.sha256 for _, ref in stages.host.logits}
        request = LaunchRequest(
            threads=0, tokens=stages.reference.tokens, passes=self.passes, logits="compact"
        )
        found: list[tuple[str, LogitsRef]] = []
        for name, ref in device.logits:
            one = replace(device, logits=((name, ref),))
            if ref.object.sha256 not in hosted:
                folder = str(self._path(ref).parent)
                one = fetch_logits(self._link, folder, request, one, self._elsewhere)
                ((_, part),) = one.logits
                self._files.setdefault(part.object.sha256, self._elsewhere.path(part.object))
            found += one.logits
        return replace(device, logits=tuple(found))

    @cached_property
    def _elsewhere(self) -> ContentStore:
        """The store of a site that has none of the host's logits."""
        return ContentStore(self.folder / "elsewhere")

    @cached_property
    def _link(self) -> BareLink:
        entry = DeviceEntry("host", "local", root=str(self.home / "host"))
        owner = LeaseOwner("benchmark", "mutations", 1, 600.0)
        return BareLink(Connection(entry, self.home, transports.open), owner)

    def keep(self, matrix: Matrix, name: str) -> LogitsRef:
        """Give logits that were computed here the form of an object."""
        path = self.folder / f"{name}-{len(self._files)}.f32"
        matrix.astype("<f4").tofile(path)
        made = ObjectRef(f"{len(self._files):064x}", path.stat().st_size, path.name)
        self._files[made.sha256] = path
        return LogitsRef(made, *matrix.shape)

    def _healthy(self, export: ExportResult, reference: ReferenceResult) -> Stages:
        host = self.check(self.store.path(export.bundle.pte), reference=reference)
        canary = self.run_canary()
        replay = None if export.replay is None else self.run_replay(export.replay)
        return Stages(export, reference, host, host, canary, replay)

    def _floor(self) -> NoiseFloor | None:
        normal = self._opened(self.healthy.host)
        others = [self._opened(self.check(self.pte, order=order)) for order in ORDERS]
        return noise_floor(normal, others, self.healthy.reference.tokens)

    def _opened(self, launch: LaunchResult) -> dict[str, Logits]:
        positions = {one.name: one.positions for one in self.passes}
        return {name: Logits(self.open_ref(ref), positions[name]) for name, ref in launch.logits}

    def _reference_request(self, export: ExportResult) -> ReferenceRequest:
        asked = self.spec.correctness
        return ReferenceRequest(
            self.source,
            self.recipe,
            Toolchain("default"),
            export.bundle,
            text=asked.text,
            tokens=asked.tokens,
            prompt=asked.prompt,
            text_lengths=text_lengths(_WORKLOAD),
        )

    def _facts(self) -> DeviceFacts:
        entry = DeviceEntry("host", "local", root=str(self.home / "host"))
        connection = Connection(entry, self.home, transports.open)
        try:
            return connection.snapshot().facts
        finally:
            connection.close()


def _silent(done: int, total: int) -> None:
    del done, total


def _quiet(event: StageEvent) -> None:
    print(f"  {event.name} {event.detail}", file=sys.stderr, flush=True)
