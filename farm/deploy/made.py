"""What a run made of a cell, and a deployment ships: of this host's store, or of a bundle."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from farm import codec, paths
from farm.core.artifact import ExportResult, ObjectRef
from farm.core.errors import StoreError
from farm.core.flow.chain import ArtifactChain, bundle_files
from farm.core.plan import ArtifactId
from farm.core.reference import ReferenceResult
from farm.core.result import CellResult
from farm.core.runner import RunnerBuild
from farm.core.tasks import ReferenceTask
from farm.run.saved_plan import SavedPlan
from farm.store import run_bundle
from farm.store.actions import ActionCache
from farm.store.objects import ContentStore
from farm.tasks import worker_process


@dataclass(frozen=True, slots=True)
class Made:
    """What a run made of a cell, as far as it is shipped."""

    export: ExportResult
    #: Token ids of the run's prompt, and those that end an answer.
    prompt: tuple[int, ...]
    stop_ids: tuple[int, ...]
    build: RunnerBuild

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """Every file that a device or its chat needs, each once."""
        words = self.export.bundle.tokenizer
        files = (*bundle_files(self.export.bundle), *self.build.files)
        found = [file.object for file in files] + ([] if words is None else [words])
        return tuple({ref.sha256: ref for ref in found}.values())


def made_of(
    folder: Path,
    saved: SavedPlan,
    result: CellResult,
    home: Path,
    builds: Callable[[str], RunnerBuild | None],
) -> Made:
    """Return what a run made of a cell; nothing is made anew.

    Args:
        folder: The run, or what a bundle was unpacked to.
        saved: Its plan.
        result: The cell.
        home: FARM_HOME, whose store has the files.
        builds: Finds a runner by its hash, and has its files in the store; a bundle has its own.

    Raises:
        StoreError: It isn't there any more, or is another artifact than the one that was judged.
    """
    if run_bundle.came_of(folder):
        made = _in_bundle(folder, result)
        remedy = "the bundle: `farm bundle RUN --with-artifacts` writes one that has them"
    else:
        made = _in_store(saved, result, home, builds)
        remedy = "the store of this host any more: run the config again, then deploy that run"
    if made is None or made.export.bundle.pte.sha256 != result.artifact.sha256:
        raise StoreError(
            f"{result.cell_id}: the artifact and runner that were validated aren't in {remedy}"
        )
    return made


def _in_bundle(folder: Path, result: CellResult) -> Made | None:
    try:
        shipped = json.loads((folder / run_bundle.SHIPPED).read_bytes())
    except FileNotFoundError:
        return None
    found = shipped.get(result.cell_id)
    return None if found is None else codec.from_data(Made, found)


def _in_store(
    saved: SavedPlan,
    result: CellResult,
    home: Path,
    builds: Callable[[str], RunnerBuild | None],
) -> Made | None:
    build = builds(result.runner.sha256 or "")
    found = None if build is None else made_by(saved, result, home)
    if build is None or found is None:
        return None
    export, reference = found
    return Made(export, reference.prompt, reference.stop_ids, build)


def made_by(
    saved: SavedPlan, result: CellResult, home: Path
) -> tuple[ExportResult, ReferenceResult] | None:
    """What a run exported for a cell, and its token ids; None where the store has lost it.

    Raises:
        FarmError: From the reference, where the store has lost that.
    """
    actions = ActionCache(ContentStore(paths.store_root(home)))
    key = result.artifact.key
    export = None if key is None else actions.lookup(f"export-{key}", ExportResult)
    if export is None or export.bundle.pte.sha256 != result.artifact.sha256:
        return None
    chain = ArtifactChain(
        ArtifactId(result.model, result.recipe, result.toolchain),
        saved.spec,
        saved.prepared.catalog,
    )
    named = replace(
        export.bundle, model=result.model, recipe=result.recipe, toolchain=result.toolchain
    )
    export = replace(export, bundle=named)
    following = chain.ended(chain.first_task(), export, None)
    (task,) = (task for task in following if isinstance(task, ReferenceTask))
    # Of the store where it is there still; the ids of a text are the same whenever they are made.
    reference = worker_process.reference(task, home, lambda _event: None, threading.Event())
    return export, reference
