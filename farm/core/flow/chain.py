"""What hangs on one artifact: its export, its reference, its run on a host."""

from __future__ import annotations

from dataclasses import replace

from farm.core.artifact import Bundle, CanaryProgram, ExportRequest, ExportResult
from farm.core.device import Device
from farm.core.errors import FarmError
from farm.core.hostrun import HostRunResult
from farm.core.plan import ArtifactId, Catalog, Cell
from farm.core.reference import ReferenceRequest, ReferenceResult, Tokenized
from farm.core.rules.launches import (
    CellLaunches,
    canary_launch,
    cell_launches,
    logits_passes,
    measures,
    ram_need_bytes,
    replay_launch,
    text_lengths,
)
from farm.core.rules.tolerance import told_apart
from farm.core.runner import OWN, OWN_KINDS, TUNED, DeployFile, Program, RunnerSpec
from farm.core.runtime import JOB_S, BaselineArm, DeviceJob, DeviceRunResult
from farm.core.spec import Resources, RunSpec
from farm.core.tasks import (
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    ReferenceTask,
    TokensTask,
)


def bundle_files(bundle: Bundle, program: Program = "pte") -> tuple[DeployFile, ...]:
    """What a device needs of a bundle: the program, and external weights after it."""
    files = [DeployFile(bundle.pte, f"model.{program}")]
    if bundle.data is not None:
        files.append(DeployFile(bundle.data, bundle.data.name))
    return tuple(files)


def export_task(target: ArtifactId, catalog: Catalog, limits: Resources) -> ExportTask:
    """Return the export of one artifact, with what is to be set aside for it."""
    request = ExportRequest(
        catalog.models[target.model],
        catalog.recipes[target.recipe],
        catalog.toolchains[target.toolchain],
    )
    return ExportTask(f"export:{target}", request, catalog.resources(limits, target))


class ArtifactChain:
    """How far one artifact is. Not to be confused with a cell: many cells share one chain."""

    def __init__(
        self,
        target: ArtifactId,
        spec: RunSpec,
        catalog: Catalog,
        features: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        self._target, self._spec = target, spec
        #: See `HostRunTask.features`.
        self._features = features
        self._model = catalog.models[target.model]
        self._runners = catalog.runners
        self.recipe = catalog.recipes[target.recipe]
        self.toolchain = catalog.toolchains[target.toolchain]
        self._export_task = export_task(target, catalog, spec.export)
        self.export: ExportResult | None = None
        self.tokens: Tokenized | None = None
        self.reference: ReferenceResult | None = None
        #: By runner of the host run, once that has ended.
        self._host: dict[str, HostRunResult | FarmError] = {}
        self._host_asked: set[str] = set()
        #: By threads, whether a baseline runs beside, whether one launch does a sweep, and the loss
        #: to tell apart: made once for all cells that share them.
        self._launches: dict[tuple[int, bool, bool, float], CellLaunches] = {}

    def first_task(self) -> HostTask:
        """Return the export: everything begins with it."""
        return self._export_task

    def ended(
        self, task: HostTask, result: HostTaskResult | None, error: FarmError | None
    ) -> list[HostTask]:
        """Take in the end of one of this chain's tasks.

        Returns:
            Tasks that can start now.

        Raises:
            FarmError: The task's own error, where no cell can go on without its result. The
                error of a host run is kept for the cells that need it.
        """
        match task, result:
            case ExportTask(), ExportResult() as export:
                self.export = export
                # Devices begin with the ids; the logits are for judging what they gave.
                tokens = TokensTask(
                    f"tokens:{self._target}", self._request(export), self._spec.prompts
                )
                return [tokens, self._reference_task(export)]
            case TokensTask(), Tokenized() as tokenized:
                self.tokens = tokenized
                return []
            case ReferenceTask(), ReferenceResult() as reference:
                self.reference = reference
                return []
            case HostRunTask(runner=runner), HostRunResult() as host:
                self._host[runner.name] = host
                return []
            case HostRunTask(runner=runner), None if error is not None:
                self._host[runner.name] = error
                return []
        raise error or FarmError(f"{task.task_id}: ended with a result of another kind")

    def host_task(self, runner: str) -> HostTask | None:
        """Return the host run, once: None when it was asked for before, or nobody needs it.

        ExecuTorch as it ships runs there, whichever runner the device has: its logits are the
        yardstick for every other that gives some. Only the tuned runner is held against itself,
        since one binary must give equal bits on equal CPUs and two need not.
        """
        if self.export is None or self.tokens is None or not self._has_yardstick(runner):
            return None
        own = self._yardstick(runner)
        if own.name in self._host_asked:
            return None
        self._host_asked.add(own.name)
        return HostRunTask(
            task_id=f"host_run:{self._target}" + ("" if own == OWN else f" {own.name}"),
            bundle=self.export.bundle,
            tokens=self.tokens.tokens,
            passes=logits_passes(self._spec.correctness, self._spec.workload),
            sdk=self.export.sdk(self.toolchain),
            runner=own,
            features=self._features,
        )

    def _yardstick(self, runner: str) -> RunnerSpec:
        return RunnerSpec(TUNED, TUNED) if self._runners[runner].kind == TUNED else OWN

    def can_judge(self, runner: str) -> bool:
        """Whether a cell of this runner has not to wait for the reference or the host's run."""
        if self.reference is None:
            return False
        return self._yardstick(runner).name in self._host or not self._has_yardstick(runner)

    def _has_yardstick(self, runner: str) -> bool:
        """Whether this host can give logits that the runner's can be compared with."""
        return self._runners[runner].gives_logits and self.recipe.backend in OWN.backends

    def no_runtime(self, runner: str) -> str:
        """Say why a runner can't run what was exported; empty where it can, or may."""
        assert self.export is not None, "asked when the export ended"
        backend, known = self.export.bundle.backend, self._runners[runner].backends
        if not known or backend in known:
            return ""
        has = ", ".join(sorted(known))
        return f"exported, not run: runner {runner} has no {backend} runtime (it has {has})"

    @property
    def is_ready(self) -> bool:
        """Whether cells can run: export and token ids are there."""
        return self.export is not None and self.tokens is not None

    def checks_kernels(self, runner: str) -> bool:
        """Whether the canary says something of this runner: its kernels come with farm's build."""
        return self._runners[runner].kind in OWN_KINDS

    def job(
        self,
        cell: Cell,
        device: str,
        *,
        attempt: int,
        run_id: str,
        epoch: int,
        baseline: BaselineArm | None = None,
        canary: CanaryProgram | None = None,
    ) -> DeviceJob:
        """Return one attempt's work for a device; export and token ids are there."""
        export, tokens = self._ready()
        bundle = export.bundle
        runner = self._runners[cell.runner]
        names = (measure.name for measure in measures(self._spec.workload))
        regress = told_apart(self._spec, cell, names)
        paired = baseline is not None
        launches = self._cell_launches(
            export, tokens, (cell.threads, paired, runner.sweeps, regress)
        )
        long = launches.sustained
        more = [one for one in launches.asked if not isinstance(one, str)]
        more += [] if long is None else [long.request]
        budget_s = 0.0 if launches.policy is None else launches.policy.budget_s
        checked = self.checks_kernels(cell.runner)
        replay = export.replay if checked and self._spec.correctness.canary else None
        tokenizer = bundle.tokenizer if runner.needs_tokenizer else None
        return DeviceJob(
            job_id=cell.cell_id,
            attempt=attempt,
            epoch=epoch,
            run_id=run_id,
            cell_id=cell.cell_id,
            device=device,
            runner=runner,
            artifact=bundle_files(bundle, self.recipe.program),
            launches=launches.once,
            policy=launches.policy,
            baseline=baseline,
            tokenizer=None if tokenizer is None else DeployFile(tokenizer, "tokenizer.json"),
            ram_need_bytes=ram_need_bytes(bundle),
            canary=canary_launch(canary, threads=cell.threads)
            if canary is not None and checked
            else None,
            replay=None if replay is None else replay_launch(replay, threads=cell.threads),
            toolchain=cell.artifact.toolchain,
            sdk=export.sdk(self.toolchain),
            priority=self._spec.priority,
            sustained=long,
            asked=launches.asked,
            timeout_s=JOB_S + budget_s + sum(request.timeout_s for request in more),
        )

    def compare_task(
        self, cell: Cell, device: Device, run: DeviceRunResult, canary: CanaryProgram | None = None
    ) -> CompareTask:
        """Return the judging of a finished device run.

        Raises:
            FarmError: The device was given other ids than the reference has logits of.
        """
        export, tokens = self._ready()
        reference = self.reference
        assert reference is not None, "cells are judged after their reference"
        if reference.tokenized != replace(tokens, asked=()):
            raise FarmError(
                f"reference:{self._target}: the reference has other token ids than the device was"
                " given: did the text or the model's files change during this run?"
            )
        runner = self._runners[cell.runner]
        host = self._host.get(self._yardstick(cell.runner).name) if runner.gives_logits else None
        return CompareTask(
            task_id=f"compare:{cell.cell_id}",
            spec=self._spec,
            device=device,
            threads=cell.threads,
            runner=runner,
            recipe=self.recipe,
            export=export,
            reference=reference,
            host=host if isinstance(host, HostRunResult) else None,
            run=run,
            host_error=host.message if isinstance(host, FarmError) else "",
            canary=canary,
            answer=None if runner.gives_logits else self._reference_task(export),
        )

    def _cell_launches(
        self, export: ExportResult, tokens: Tokenized, key: tuple[int, bool, bool, float]
    ) -> CellLaunches:
        if key not in self._launches:
            threads, paired, sweeps, regress = key
            self._launches[key] = cell_launches(
                self._spec,
                tokens,
                threads=threads,
                max_context=export.bundle.metadata.max_context,
                paired=paired,
                sweeps=sweeps,
                regress=regress,
            )
        return self._launches[key]

    def _ready(self) -> tuple[ExportResult, Tokenized]:
        assert self.export is not None, "cells run after their export"
        assert self.tokens is not None, "cells run after their text was tokenised"
        return self.export, self.tokens

    def _request(self, export: ExportResult) -> ReferenceRequest:
        return ReferenceRequest(
            model=self._model,
            recipe=self.recipe,
            toolchain=self.toolchain,
            bundle=export.bundle,
            text=self._spec.correctness.text,
            tokens=self._spec.correctness.tokens,
            prompt=self._spec.correctness.prompt,
            text_lengths=text_lengths(self._spec.workload),
        )

    def _reference_task(self, export: ExportResult) -> ReferenceTask:
        task_id, request = f"reference:{self._target}", self._request(export)
        return ReferenceTask(task_id, request, self._export_task.resources)
