"""What hangs on one artifact: its export, its reference, its run on a host for each runner."""

from __future__ import annotations

from farm.core.artifact import ExportRequest, ExportResult, ReferenceRequest, ReferenceResult
from farm.core.device import Device
from farm.core.errors import FarmError
from farm.core.launches import cell_launches, logits_passes, ram_need_bytes
from farm.core.plan import ArtifactId, Catalog, Cell
from farm.core.runtime import DeployFile, DeviceJob, DeviceRunResult, HostRunResult
from farm.core.spec import RunSpec
from farm.core.tasks import (
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    ReferenceTask,
)


class ArtifactChain:
    """How far one artifact is. Not to be confused with a cell: many cells share one chain."""

    def __init__(self, target: ArtifactId, spec: RunSpec, catalog: Catalog) -> None:
        self._target, self._spec = target, spec
        self._model = catalog.models[target.model]
        self.recipe = catalog.recipes[target.recipe]
        self.toolchain = catalog.toolchains[target.toolchain]
        self.export: ExportResult | None = None
        self.reference: ReferenceResult | None = None
        #: By runner; None while the run is under way.
        self.hosts: dict[str, HostRunResult | FarmError | None] = {}

    def first_task(self) -> HostTask:
        """Return the export: everything begins with it."""
        request = ExportRequest(self._model, self.recipe, self.toolchain)
        return ExportTask(f"export:{self._target}", request)

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
                return [self._reference_task(export)]
            case ReferenceTask(), ReferenceResult() as reference:
                self.reference = reference
                return []
            case HostRunTask(), HostRunResult() as host:
                self.hosts[task.runner] = host
                return []
            case HostRunTask(), None if error is not None:
                self.hosts[task.runner] = error
                return []
        raise error or FarmError(f"{task.task_id}: ended with a result of another kind")

    def host_task(self, runner: str) -> HostTask | None:
        """Return the host run for a runner, once: None when it was asked for before."""
        if runner in self.hosts or self.export is None or self.reference is None:
            return None
        self.hosts[runner] = None
        return HostRunTask(
            task_id=f"host_run:{self._target}:{runner}",
            bundle=self.export.bundle,
            runner=runner,
            tokens=self.reference.tokens,
            passes=logits_passes(self._spec.correctness, self._spec.workload),
            executorch=self.toolchain.executorch,
        )

    def job(self, cell: Cell, device: str, *, attempt: int, run_id: str, epoch: int) -> DeviceJob:
        """Return one attempt's work for a device; export and reference are done."""
        export, reference = self._done()
        bundle = export.bundle
        files = [DeployFile(bundle.pte, "model.pte")]
        if bundle.data is not None:
            files.append(DeployFile(bundle.data, bundle.data.name))
        return DeviceJob(
            job_id=cell.cell_id,
            attempt=attempt,
            epoch=epoch,
            run_id=run_id,
            cell_id=cell.cell_id,
            device=device,
            runner=cell.runner,
            artifact=tuple(files),
            launches=cell_launches(
                self._spec.correctness, self._spec.workload, reference, threads=cell.threads
            ),
            ram_need_bytes=ram_need_bytes(bundle),
            toolchain=cell.artifact.toolchain,
            executorch=self.toolchain.executorch,
        )

    def compare_task(self, cell: Cell, device: Device, run: DeviceRunResult) -> CompareTask:
        """Return the judging of a finished device run."""
        export, reference = self._done()
        host = self.hosts.get(cell.runner)
        return CompareTask(
            task_id=f"compare:{cell.cell_id}",
            spec=self._spec,
            device=device,
            threads=cell.threads,
            runner=cell.runner,
            recipe=self.recipe,
            export=export,
            reference=reference,
            host=host if isinstance(host, HostRunResult) else None,
            run=run,
        )

    def _done(self) -> tuple[ExportResult, ReferenceResult]:
        assert self.export is not None, "cells run after their export"
        assert self.reference is not None, "cells run after their reference"
        return self.export, self.reference

    def _reference_task(self, export: ExportResult) -> HostTask:
        request = ReferenceRequest(
            model=self._model,
            recipe=self.recipe,
            toolchain=self.toolchain,
            bundle=export.bundle,
            text=self._spec.correctness.text,
            tokens=self._spec.correctness.tokens,
            prompt=self._spec.correctness.prompt,
        )
        return ReferenceTask(f"reference:{self._target}", request)
