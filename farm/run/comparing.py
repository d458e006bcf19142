"""Compares what devices measured in an earlier part of a run, or before it was interrupted.

Everything else than comparing is known by then, or comes from the store: no device is needed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping

from farm.core.artifact import CanaryProgram, StageEvent
from farm.core.errors import FarmError
from farm.core.flow import outcomes
from farm.core.flow.chain import ArtifactChain
from farm.core.flow.second import first_of, is_second, sitting_of
from farm.core.judgement import Judgement
from farm.core.plan import ArtifactId, Cell
from farm.core.result import AttemptReport, CellResult
from farm.core.tasks import KIND_NAMES, CanaryTask, HostTask, HostTaskResult
from farm.core.view import CellDone, TaskFinished, TaskStarted, ViewEvent
from farm.planning.planning import Prepared
from farm.protocols import Site, TaskPool
from farm.run.journal import Journal
from farm.run.measured import Measured, attempts_in
from farm.store.actions import object_refs
from farm.store.objects import ContentStore

log = logging.getLogger(__name__)

#: Longest time for logits that were measured before a run was resumed to come here, seconds.
COLLECT_S = 300.0


class Comparing:
    """Judges results of devices outside the flow.

    Args:
        prepared: The plan.
        pool: Where host tasks run.
        emit: Receives view events.
    """

    def __init__(
        self, prepared: Prepared, pool: TaskPool, emit: Callable[[ViewEvent], None]
    ) -> None:
        self._spec, self._catalog = prepared.spec, prepared.catalog
        self._cells = {cell.cell_id: cell for cell in prepared.plan.cells}
        self._features = prepared.plan.cpu_features()
        self._pool, self._emit = pool, emit
        #: By task id; errors too, so that a failing export is tried once.
        self._known: dict[str, HostTaskResult | FarmError] = {}
        self._chains: dict[ArtifactId, asyncio.Task[ArtifactChain]] = {}

    def note(self, task: HostTask, outcome: HostTaskResult | FarmError) -> None:
        """Take in what a task of this run gave; errors may be those of a cancellation."""
        if not isinstance(outcome, FarmError):
            self._known[task.task_id] = outcome

    async def judge(
        self,
        measured: Iterable[Measured],
        attempts: Mapping[str, tuple[AttemptReport, ...]],
        done: Callable[[CellResult], None],
    ) -> None:
        """Judge each, side by side; `done` gets those that could be judged.

        Args:
            measured: Results of devices.
            attempts: All attempts of a cell, where more are known than the one that ran.
            done: Called with each verdict.

        Raises:
            StoreError: From `done`.
        """
        work = [
            asyncio.ensure_future(self._one(item, attempts.get(item.cell_id, ()), done))
            for item in measured
            if first_of(item.cell_id) in self._cells
        ]
        try:
            await asyncio.gather(*work)
        finally:
            pending = [*work, *self._chains.values()]
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _one(
        self,
        item: Measured,
        attempts: tuple[AttemptReport, ...],
        done: Callable[[CellResult], None],
    ) -> None:
        cell = self._cells[first_of(item.cell_id)]
        if is_second(item.cell_id):
            cell = sitting_of(cell, item.device.name)
        try:
            result = await self._judged(cell, item, attempts or item.attempts)
        except FarmError as error:
            log.warning("%s: measured, but not compared: %s", cell.cell_id, error)
            return
        done(result)

    async def _judged(
        self, cell: Cell, item: Measured, attempts: tuple[AttemptReport, ...]
    ) -> CellResult:
        chain = await self._chain(cell.artifact)
        assert chain.export is not None, "a chain begins with its export"
        if chain.export.bundle.pte.sha256 != item.program_sha256:
            raise FarmError("its program was exported anew since, with other bytes")
        canary = None
        if self._spec.correctness.canary and chain.checks_kernels(cell.runner):
            made, _ = await self._outcome(CanaryTask("canary:kernels", self._spec.export))
            canary = made if isinstance(made, CanaryProgram) else None
        task = chain.compare_task(cell, item.device, item.result, canary)
        judgement, error = await self._outcome(task)
        if not isinstance(judgement, Judgement):
            raise error or FarmError(f"{task.task_id}: ended with a result of another kind")
        return outcomes.judged(cell, item.device, task, judgement, attempts)

    async def _chain(self, target: ArtifactId) -> ArtifactChain:
        """Return an artifact's chain with everything but the devices done; made once."""
        if target not in self._chains:
            self._chains[target] = asyncio.ensure_future(self._made(target))
        return await asyncio.shield(self._chains[target])

    async def _made(self, target: ArtifactId) -> ArtifactChain:
        chain = ArtifactChain(target, self._spec, self._catalog, self._features)
        tasks = [chain.first_task()]
        while tasks:
            task = tasks.pop()
            tasks += chain.ended(task, *await self._outcome(task))
        for cell in self._cells.values():
            host = chain.host_task(cell.runner) if cell.artifact == target else None
            if host is not None:
                chain.ended(host, *await self._outcome(host))
        return chain

    async def _outcome(self, task: HostTask) -> tuple[HostTaskResult | None, FarmError | None]:
        if task.task_id not in self._known:
            self._known[task.task_id] = await self._run(task)
        found = self._known[task.task_id]
        return (None, found) if isinstance(found, FarmError) else (found, None)

    async def _run(self, task: HostTask) -> HostTaskResult | FarmError:
        kind, name = KIND_NAMES[type(task)], task.task_id.partition(":")[2]
        started = time.monotonic()
        self._emit(TaskStarted(kind, name))
        found: HostTaskResult | FarmError
        try:
            found = await self._pool.run(task, _ignore)
        except FarmError as error:
            found = error
        message = str(found) if isinstance(found, FarmError) else None
        hit = bool(getattr(found, "cache_hit", False))
        self._emit(TaskFinished(kind, name, time.monotonic() - started, hit, message))
        return found


def _ignore(event: StageEvent) -> None:
    """Stages of these tasks are short."""


async def compare_measured(
    comparing: Comparing,
    journal: Journal,
    store: ContentStore,
    results: MutableMapping[str, CellResult],
    emit: Callable[[ViewEvent], None],
) -> None:
    """Judge what devices measured and nobody compared; `results` takes the verdicts."""

    def done(result: CellResult) -> None:
        journal.reopen([result.cell_id])
        journal.finish_cell(result)
        results[result.cell_id] = result
        emit(CellDone(result))

    measured = [item for item in journal.measured().values() if _is_complete(item, store)]
    if measured:
        await comparing.judge(measured, attempts_in(journal.events()), done)


async def collect_measured(
    journal: Journal, store: ContentStore, sites: Mapping[str, Site]
) -> None:
    """Bring what an earlier epoch measured to this host, where its sites still have it."""
    for item in journal.measured().values():
        site = sites.get(item.device.entry.site)
        gone = [ref for ref in object_refs(item.result.launches) if not store.has(ref.sha256)]
        if site is None or not gone:
            continue
        try:
            async with asyncio.timeout(COLLECT_S):
                await site.collect(gone)
        except (FarmError, TimeoutError) as error:
            log.warning("%s: its logits did not come: %s", item.cell_id, error or "no answer")


def _is_complete(item: Measured, store: ContentStore) -> bool:
    """Whether the logits of a result are still in the store; without them it is measured anew."""
    gone = [ref for ref in object_refs(item.result.launches) if not store.has(ref.sha256)]
    if gone:
        log.warning("%s: was measured, but %s is gone: it runs again", item.cell_id, gone[0].name)
    return not gone
