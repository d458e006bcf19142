"""Host tasks as Ray tasks. It starts no runtime (ray_runtime does) and knows no device."""

from __future__ import annotations

import asyncio
import logging
import platform
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from farm.cluster.granted import granted
from farm.cluster.ray_stores import Offers, RayStores, take_in
from farm.cluster.start_failure import telling
from farm.core.artifact import StageEvent
from farm.core.errors import FarmError, Interrupted, PlanError
from farm.core.tasks import (
    ExportTask,
    HostTask,
    HostTaskResult,
    PoolHosts,
    ReferenceTask,
    TokensTask,
)
from farm.host.source_tree import tree_sha256
from farm.protocols import StageCallback
from farm.store.actions import object_refs
from farm.tasks.inputs import inputs

log = logging.getLogger(__name__)

#: Label that Ray gives each node: its id.
_NODE_LABEL = "ray.io/node-id"
#: How often a task that has not begun is looked after, seconds.
_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The error of a task, sent as data so that Ray doesn't wrap it."""

    error: FarmError


@dataclass(frozen=True, slots=True)
class _Began:
    """The first word of a task: the node that it is on."""

    node: str


def _stream(
    task: HostTask, offers: Offers, tree: str
) -> Iterator[_Began | StageEvent | HostTaskResult | TaskFailed]:
    """Body of the Ray task: stages as they come, then the result or the error."""
    from farm.cluster.bound import forget_preload
    from farm.paths import farm_home
    from farm.tasks import perform

    forget_preload()
    items: queue.SimpleQueue[StageEvent | HostTaskResult | TaskFailed] = queue.SimpleQueue()
    ended = threading.Event()

    def work() -> None:
        try:
            _refuse_another_farm(tree)
            home = farm_home()
            if offers:
                asyncio.run(take_in(offers, home, items.put))
            items.put(perform.run_task(task, home, items.put, ended))
        except FarmError as error:
            items.put(TaskFailed(error))
        except Exception as error:  # the fence of one task: its error becomes an outcome
            log.exception("task %s", task.task_id)
            items.put(TaskFailed(FarmError(f"{task.task_id}: {type(error).__name__}: {error}")))

    thread = threading.Thread(target=work, name="farm-task", daemon=True)
    thread.start()
    yield _Began(ray.get_runtime_context().get_node_id())
    try:
        while True:
            item = items.get()
            yield item
            if not isinstance(item, StageEvent):
                return
    finally:
        ended.set()


def _refuse_another_farm(expected: str) -> None:
    """Compare farm's sources here with the controller's; a node without a site was never asked."""
    if (found := tree_sha256()) != expected:
        text = f"{platform.node()} runs another farm: {found} there, {expected} here"
        raise PlanError(f"{text}. Install the same version on both.")


class _WorkerLost(Exception):
    """The process or the node of a task is gone; the task may work elsewhere."""

    def __init__(self, why: str, node: str) -> None:
        super().__init__(why)
        self.node = node


class RayPool:
    """Host tasks on the CPUs of a cluster.

    Args:
        cpus_per_export: CPUs of an export that asks for none.
        stores: How objects get to tasks and back; None where every node has one store.
    """

    def __init__(self, *, cpus_per_export: int, stores: RayStores | None = None) -> None:
        self._remote = ray.remote(max_retries=0)(_stream)
        self._cpus, self._stores = cpus_per_export, stores
        self._running: set[Any] = set()
        self._closed = False

    def hosts(self) -> PoolHosts:
        """See protocols.TaskPool. A host is a node of the cluster, named by its id."""
        here = ray.get_runtime_context().get_node_id()
        nodes = {
            node["NodeID"]: node["Resources"]
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU")
        }
        sites = {
            name.removeprefix("site:"): node
            for node, resources in nodes.items()
            for name in resources
            if name.startswith("site:")
        }
        return PoolHosts(frozenset(nodes), {"": here, **sites})

    async def run(
        self, task: HostTask, on_stage: StageCallback, but: frozenset[str] = frozenset()
    ) -> HostTaskResult:
        """See protocols.TaskPool. A task whose worker is lost starts once more, elsewhere."""
        try:
            return await self._run(task, on_stage, but)
        except _WorkerLost as lost:
            if self._closed:
                raise Interrupted(f"{task.task_id} was cancelled") from None
            log.warning("%s: starts once more: %s", task.task_id, lost)
            on_stage(StageEvent("waiting", 0, 0, 0.0, "its worker was lost: it starts once more"))
            try:
                return await self._run(task, on_stage, but, lost.node)
            except _WorkerLost as again:
                text = f"{task.task_id}: its Ray worker was lost twice: {lost}; {again}"
                raise FarmError(text) from again

    async def _run(
        self, task: HostTask, on_stage: StageCallback, but: frozenset[str], lost: str = ""
    ) -> HostTaskResult:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in but]
        nodes = [node for node in nodes if node["NodeID"] != lost] or nodes
        if not nodes:
            raise FarmError(
                f"{task.task_id}: every node that is left is measured by this run, so nothing else"
                " may run there: add a node without devices, or leave `local` devices out"
            )
        # Devices wait for token ids, which take a moment: they wait for no CPU.
        options: dict[str, Any] = {"num_cpus": 0 if isinstance(task, TokensTask) else 1}
        if isinstance(task, ExportTask | ReferenceTask):
            task = replace(
                task, resources=granted(task.resources, [n["Resources"] for n in nodes], self._cpus)
            )
            options["num_cpus"] = task.resources.cpus
            options["memory"] = task.resources.memory_bytes or None
        if but:
            options["label_selector"] = {_NODE_LABEL: f"!in({','.join(sorted(but))})"}
        if self._stores is not None:
            options["scheduling_strategy"] = "DEFAULT" if but else _placed(nodes, options)
        offers = () if self._stores is None else await self._stores.offers(inputs(task))
        tree = tree_sha256()
        stream = self._remote.options(**options, name=task.task_id).remote(task, offers, tree)
        self._running.add(stream)
        node = ""
        stranded = asyncio.ensure_future(_end_stranded(stream, options, but))
        try:
            async for reference in stream:
                item = await reference
                if isinstance(item, _Began):
                    stranded.cancel()
                    node = item.node
                elif isinstance(item, StageEvent):
                    on_stage(item)
                elif isinstance(item, TaskFailed):
                    raise item.error
                else:
                    result: HostTaskResult = item
                    await self._bring_home(task, result, node, on_stage)
                    return result
            raise FarmError(f"{task.task_id}: ended without a result")
        except ray_errors.TaskCancelledError:
            if stranded.done() and not stranded.cancelled():
                raise _WorkerLost("no host is left that it fits on", "") from None
            raise Interrupted(f"{task.task_id} was cancelled") from None
        except ray_errors.RayError as error:
            raise _WorkerLost(telling(str(error)), node) from error
        except asyncio.CancelledError:
            # Dropping the stream would leave its producer running.
            ray.cancel(stream, force=True)
            raise
        finally:
            stranded.cancel()
            self._running.discard(stream)

    async def _bring_home(
        self, task: HostTask, result: HostTaskResult, node: str, on_stage: StageCallback
    ) -> None:
        """Bring what a task made to this host: the run needs it, whatever becomes of the node."""
        refs = list(dict.fromkeys(object_refs(result)))
        if self._stores is None or not refs:
            return
        total, started = sum(ref.size_bytes for ref in refs), time.monotonic()

        def progress(done: int) -> None:
            elapsed_s = time.monotonic() - started
            on_stage(StageEvent("transfer", done, total, elapsed_s, "bytes to this host"))

        try:
            remarks = await self._stores.bring(refs, RayStores.HERE, progress, first=node)
        except FarmError as error:
            if any(n["NodeID"] == node and n["Alive"] for n in ray.nodes()):
                raise
            raise _WorkerLost(error.message, node) from error
        for remark in remarks:
            log.warning("%s: %s", task.task_id, remark)

    async def close(self) -> None:
        """See protocols.TaskPool."""
        self._closed = True
        for stream in list(self._running):
            ray.cancel(stream, force=True)


def _placed(nodes: list[dict[str, Any]], options: dict[str, Any]) -> Any:
    """Prefer this host, which has the inputs and the results of earlier runs, then any other."""
    here = ray.get_runtime_context().get_node_id()
    fits = [node for node in nodes if _fits(node, options)]
    if not fits:
        return "DEFAULT"
    best = next((node for node in fits if node["NodeID"] == here), fits[0])
    return NodeAffinitySchedulingStrategy(best["NodeID"], soft=True, _spill_on_unavailable=True)


def _fits(node: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether a node has what a task asks for, were it idle."""
    has = node["Resources"]
    enough = has.get("memory", 0) >= (options.get("memory") or 0)
    return bool(enough and has.get("CPU", 0) >= options["num_cpus"])


async def _end_stranded(stream: Any, options: dict[str, Any], but: frozenset[str]) -> None:
    """End a task that waits for hosts which have left: Ray would let it wait for ever."""
    while any(
        node["Alive"] and node["NodeID"] not in but and _fits(node, options) for node in ray.nodes()
    ):
        await asyncio.sleep(_LOOK_S)
    ray.cancel(stream, force=True)
