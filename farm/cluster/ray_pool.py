"""Host tasks as Ray tasks. It starts no runtime (ray_runtime does) and knows no device."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import exceptions as ray_errors

from farm.cluster.granted import granted
from farm.core.artifact import StageEvent
from farm.core.errors import FarmError, Interrupted
from farm.core.tasks import ExportTask, HostTask, HostTaskResult, ReferenceTask
from farm.protocols import StageCallback

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The error of a task, sent as data so that Ray doesn't wrap it."""

    error: FarmError


def _stream(task: HostTask) -> Iterator[StageEvent | HostTaskResult | TaskFailed]:
    """Body of the Ray task: stages as they come, then the result or the error."""
    from farm.cluster.bound import forget_preload
    from farm.paths import farm_home
    from farm.tasks import perform

    forget_preload()
    items: queue.SimpleQueue[StageEvent | HostTaskResult | TaskFailed] = queue.SimpleQueue()
    ended = threading.Event()

    def work() -> None:
        try:
            items.put(perform.run_task(task, farm_home(), items.put, ended))
        except FarmError as error:
            items.put(TaskFailed(error))
        except Exception as error:  # the fence of one task: its error becomes an outcome
            log.exception("task %s", task.task_id)
            items.put(TaskFailed(FarmError(f"{task.task_id}: {type(error).__name__}: {error}")))

    thread = threading.Thread(target=work, name="farm-task", daemon=True)
    thread.start()
    try:
        while True:
            item = items.get()
            yield item
            if not isinstance(item, StageEvent):
                return
    finally:
        ended.set()


class RayPool:
    """Host tasks on the CPUs of a cluster."""

    def __init__(self, *, cpus_per_export: int) -> None:
        self._remote = ray.remote(max_retries=0)(_stream)
        self._cpus = cpus_per_export
        self._running: set[Any] = set()

    async def run(self, task: HostTask, on_stage: StageCallback) -> HostTaskResult:
        """See protocols.TaskPool."""
        options: dict[str, Any] = {"num_cpus": 1}
        if isinstance(task, ExportTask | ReferenceTask):
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            task = replace(task, resources=granted(task.resources, nodes, self._cpus))
            options["num_cpus"] = task.resources.cpus
            options["memory"] = task.resources.memory_bytes or None
        stream = self._remote.options(**options, name=task.task_id).remote(task)
        self._running.add(stream)
        try:
            async for reference in stream:
                item = await reference
                if isinstance(item, StageEvent):
                    on_stage(item)
                elif isinstance(item, TaskFailed):
                    raise item.error
                else:
                    result: HostTaskResult = item
                    return result
            raise FarmError(f"{task.task_id}: ended without a result")
        except ray_errors.TaskCancelledError:
            raise Interrupted(f"{task.task_id} was cancelled") from None
        except ray_errors.RayError as error:
            raise FarmError(f"{task.task_id}: its Ray worker was lost: {error}") from error
        except asyncio.CancelledError:
            # Dropping the stream would leave its producer running.
            ray.cancel(stream, force=True)
            raise
        finally:
            self._running.discard(stream)

    async def close(self) -> None:
        """See protocols.TaskPool."""
        for stream in list(self._running):
            ray.cancel(stream, force=True)
