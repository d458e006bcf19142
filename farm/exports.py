"""Exports of a run: what became of each, and the export command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from farm import home as layout
from farm.cluster import start as cluster_start
from farm.core.artifact import ExportRequest, ExportResult, StageEvent, ToolchainVersions
from farm.core.errors import FarmError
from farm.core.plan import ArtifactId, Catalog
from farm.core.report import export_report
from farm.core.result import ExportReport
from farm.core.tasks import ExportTask
from farm.core.view import TaskFinished, TaskProgress, TaskStarted, ViewEvent
from farm.history import History
from farm.prepare import RunOptions, load

Emit = Callable[[ViewEvent], None]


class ExportLog:
    """What became of each export of a run."""

    def __init__(self) -> None:
        self.results: dict[ArtifactId, ExportResult | FarmError] = {}

    def note(self, task: object, outcome: object) -> None:
        """Take in the end of a host task."""
        if isinstance(task, ExportTask) and isinstance(outcome, ExportResult | FarmError):
            request = task.request
            artifact = ArtifactId(request.model.name, request.recipe.name, request.toolchain.name)
            self.results[artifact] = outcome

    def reports(self, artifacts: Sequence[ArtifactId]) -> list[ExportReport]:
        """Describe each export that ended."""
        found = []
        for artifact in artifacts:
            outcome = self.results.get(artifact)
            if isinstance(outcome, ExportResult):
                found.append(export_report(artifact, outcome, None))
            elif outcome is not None:
                found.append(export_report(artifact, None, outcome))
        return found

    def versions(self) -> dict[str, ToolchainVersions]:
        """Return the resolved versions by toolchain."""
        return {
            artifact.toolchain: outcome.versions
            for artifact, outcome in self.results.items()
            if isinstance(outcome, ExportResult)
        }


def export(options: RunOptions, home: Path, emit: Emit) -> list[ExportReport]:
    """Export every artifact of a config, without devices.

    Raises:
        FarmError: The config is wrong or the cluster can't start; failed exports are data.
    """
    spec, _, catalog, _ = load(options)
    wanted = [
        ArtifactId(model.name, recipe, toolchain)
        for model in spec.models
        for recipe in spec.matrix.recipe
        for toolchain in spec.matrix.toolchain
    ]
    return asyncio.run(_export(options, home, emit, catalog, wanted))


async def _export(
    options: RunOptions, home: Path, emit: Emit, catalog: Catalog, wanted: Sequence[ArtifactId]
) -> list[ExportReport]:
    history = History(layout.history_db(home))
    estimates = history.durations_s()
    history.close()
    runtime = await cluster_start.start(options.cluster, home)

    async def one(artifact: ArtifactId) -> ExportReport:
        task = ExportTask(
            f"export:{artifact}",
            ExportRequest(
                catalog.models[artifact.model],
                catalog.recipes[artifact.recipe],
                catalog.toolchains[artifact.toolchain],
            ),
        )
        name, started = str(artifact), time.monotonic()
        emit(TaskStarted("export", name, estimates.get(task.task_id)))

        def on_stage(event: StageEvent) -> None:
            elapsed = time.monotonic() - started
            emit(
                TaskProgress(
                    "export",
                    name,
                    event.name,
                    event.index,
                    event.count,
                    elapsed,
                    event.detail,
                    event.done_bytes,
                    event.total_bytes,
                )
            )

        try:
            result = await runtime.pool.run(task, on_stage)
            assert isinstance(result, ExportResult)
        except FarmError as error:
            emit(TaskFinished("export", name, time.monotonic() - started, False, str(error)))
            return export_report(artifact, None, error)
        emit(TaskFinished("export", name, time.monotonic() - started, result.cache_hit))
        return export_report(artifact, result, None)

    try:
        return list(await asyncio.gather(*(one(artifact) for artifact in wanted)))
    finally:
        await runtime.close()
