"""`farm export`: every artifact of a config, without devices, and copies for other tools."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm import paths
from farm.cluster import start as cluster_start
from farm.core.artifact import ExportResult, StageEvent
from farm.core.errors import FarmError, StoreError
from farm.core.flow.chain import export_task
from farm.core.plan import ArtifactId, Catalog
from farm.core.report import export_report
from farm.core.result import ExportReport
from farm.core.spec import Resources
from farm.core.view import TaskFinished, TaskProgress, TaskStarted, ViewEvent
from farm.planning.planning import RunOptions, load_checked
from farm.run.past_runs import PastRuns
from farm.store.objects import ContentStore

Emit = Callable[[ViewEvent], None]


@dataclass(frozen=True, slots=True)
class Made:
    """One export of the export command."""

    report: ExportReport
    #: None when it failed.
    result: ExportResult | None


def export(options: RunOptions, home: Path, emit: Emit) -> list[Made]:
    """Export every artifact of a config, without devices.

    Raises:
        FarmError: The config is wrong or the cluster can't start; failed exports are data.
    """
    loaded = load_checked(options, home)
    spec, catalog = loaded.spec, loaded.catalog
    wanted = [
        ArtifactId(model.name, recipe, toolchain)
        for model in spec.models
        for recipe in spec.matrix.recipe
        for toolchain in spec.matrix.toolchain
    ]
    cluster_start.launch(options.cluster)
    with ContentStore(paths.store_root(home)).in_use(f"farm export {options.config}"):
        return asyncio.run(_export(options, home, emit, catalog, spec.export, wanted))


async def _export(
    options: RunOptions,
    home: Path,
    emit: Emit,
    catalog: Catalog,
    limits: Resources,
    wanted: Sequence[ArtifactId],
) -> list[Made]:
    # Estimates are a help: where the index can't be used the export goes on without them.
    estimates = PastRuns(home, []).durations_s()
    runtime = await cluster_start.start(options.cluster, home)

    async def one(artifact: ArtifactId) -> Made:
        task = export_task(artifact, catalog, limits)
        name, started = str(artifact), time.monotonic()
        emit(TaskStarted("export", name, estimates.get(task.task_id)))

        def on_stage(event: StageEvent) -> None:
            emit(TaskProgress.of("export", name, event, time.monotonic() - started))

        try:
            result = await runtime.pool.run(task, on_stage)
            assert isinstance(result, ExportResult)
        except FarmError as error:
            emit(TaskFinished("export", name, time.monotonic() - started, False, str(error)))
            return Made(export_report(artifact, None, error), None)
        emit(TaskFinished("export", name, time.monotonic() - started, result.cache_hit))
        return Made(export_report(artifact, result, None), result)

    try:
        return list(await asyncio.gather(*(one(artifact) for artifact in wanted)))
    finally:
        await runtime.close()


def copy_out(made: Sequence[Made], home: Path, folder: Path) -> list[Path]:
    """Copy programs, external weights and tokenizers out of the store, for other tools.

    Returns:
        The files, named `MODEL-RECIPE.pte`, `MODEL-RECIPE.ptd` and `MODEL-tokenizer.json`.

    Raises:
        StoreError: The folder can't be written, or an object is damaged.
    """
    store = ContentStore(paths.store_root(home))
    copied = []
    for item in made:
        if item.result is None:
            continue
        bundle = item.result.bundle
        names = {
            f"{bundle.model}-{bundle.recipe}.pte": bundle.pte,
            f"{bundle.model}-{bundle.recipe}.ptd": bundle.data,
            f"{bundle.model}-tokenizer.json": bundle.tokenizer,
        }
        for name, ref in names.items():
            if ref is None:
                continue
            target = folder / name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                shutil.copyfile(store.path(ref), target)
            except OSError as error:
                raise StoreError(f"can't copy to {target}: {error.strerror}") from error
            copied.append(target)
    return copied
