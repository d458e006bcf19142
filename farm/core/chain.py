"""What hangs on one artifact: its export, its reference, its run on a host for each runner."""

from __future__ import annotations

from farm.core.artifact import ExportRequest, ExportResult, ReferenceRequest, ReferenceResult
from farm.core.errors import FarmError
from farm.core.launches import logits_passes
from farm.core.plan import ArtifactId, Catalog
from farm.core.runtime import HostRunResult
from farm.core.spec import RunSpec
from farm.core.tasks import ExportTask, HostRunTask, HostTask, HostTaskResult, ReferenceTask


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
