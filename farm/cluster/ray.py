"""Ray: host tasks as Ray tasks, one site agent as an actor. The only place that imports ray."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from farm.core.artifact import ObjectRef, StageEvent
from farm.core.device import Device, DeviceEntry
from farm.core.errors import FarmError, Interrupted, PlanError
from farm.core.events import Handshake, Numbered
from farm.core.runtime import DeviceJob
from farm.core.spec import Resources
from farm.core.tasks import ExportTask, HostTask, HostTaskResult, ReferenceTask
from farm.protocols import PROBE_LIMIT_S, StageCallback

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import exceptions as ray_errors

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Memory of the object store of a local cluster: events and small results travel through it,
#: logits never do.
_OBJECT_STORE_BYTES = 128 << 20
_AGENT_NAME = "farm-site-{site}"
_NAMESPACE = "farm"


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The error of a task, sent as data so that Ray doesn't wrap it."""

    error: FarmError


def start_local(*, cpus: int) -> None:
    """Start a Ray runtime that belongs to this process and ends with it.

    Raises:
        PlanError: Ray can't start here; the message says why and names `--cluster none`.
    """
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            resources={"site:local": 1},
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            namespace=_NAMESPACE,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
    except (RuntimeError, OSError, ValueError, ConnectionError, ray_errors.RayError) as error:
        raise PlanError(
            f"Ray can't start on this machine: {error}. `--cluster none` runs the same work"
            " without it."
        ) from error


def join(address: str) -> None:
    """Join a running cluster.

    Raises:
        PlanError: Nothing answers there.
    """
    try:
        ray.init(
            address=address, namespace=_NAMESPACE, configure_logging=False, log_to_driver=False
        )
    except (RuntimeError, OSError, ValueError, ConnectionError, ray_errors.RayError) as error:
        raise PlanError(
            f"no Ray cluster answers at {address}: {error}. Start one with `ray start --head"
            " --resources '{\"site:NAME\": 1}'`, or leave --cluster out."
        ) from error


def site_names() -> list[str]:
    """Return the sites that the nodes of this cluster declare (`site:NAME` resources)."""
    resources = ray.cluster_resources()
    return sorted(name.removeprefix("site:") for name in resources if name.startswith("site:"))


def stop() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()


def _stream(task: HostTask) -> Iterator[StageEvent | HostTaskResult | TaskFailed]:
    """Body of the Ray task: stages as they come, then the result or the error."""
    from farm.cluster import tasks
    from farm.home import farm_home

    items: queue.SimpleQueue[StageEvent | HostTaskResult | TaskFailed] = queue.SimpleQueue()
    ended = threading.Event()

    def work() -> None:
        try:
            items.put(tasks.run_task(task, farm_home(), items.put, ended))
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
            task = replace(task, resources=self._granted(task.resources))
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

    def _granted(self, asked: Resources) -> Resources:
        """What the largest node can set aside: Ray would wait for ever for more.

        A model that doesn't fit is refused by the export itself, which says what it needs.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = max((int(node.get("CPU", 1)) for node in nodes), default=1)
        memory = max((int(node.get("memory", 0)) for node in nodes), default=0)
        return replace(
            asked,
            cpus=max(1, min(asked.cpus or self._cpus, cpus)),
            memory_bytes=min(asked.memory_bytes, memory),
        )

    async def close(self) -> None:
        """See protocols.TaskPool."""
        for stream in list(self._running):
            ray.cancel(stream, force=True)


class RaySite:
    """A site agent in a Ray actor, pinned to the node that has its devices.

    Args:
        name: Name of the site, as in the `site:NAME` resource of its node.
        factory: Makes the plain agent inside the actor; picklable.
        detached: Keep the agent when this process ends (joined clusters).
    """

    def __init__(self, name: str, factory: Callable[[], Any], *, detached: bool = False) -> None:
        self.name = name
        # max_task_retries stays 0: with 1 a job can silently run twice.
        options: Mapping[str, Any] = {
            "num_cpus": 0,
            "resources": {f"site:{name}": 0.001},
            "max_restarts": -1 if detached else 0,
            "max_concurrency": 64,
            **(
                {
                    "name": _AGENT_NAME.format(site=name),
                    "lifetime": "detached",
                    "get_if_exists": True,
                }
                if detached
                else {}
            ),
        }
        self._actor = ray.remote(_Agent).options(**options).remote(factory)

    async def handshake(self) -> Handshake:
        """See protocols.Site."""
        handshake: Handshake = await self._call(self._actor.handshake.remote())
        return handshake

    async def inventory(
        self,
        entries: Sequence[DeviceEntry],
        *,
        adb_auto: bool,
        limit_s: float = PROBE_LIMIT_S,
        recover: bool = False,
    ) -> list[Device]:
        """See protocols.Site."""
        call = self._actor.inventory.remote(tuple(entries), adb_auto, limit_s, recover)
        devices: list[Device] = await self._call(call)
        return devices

    async def submit(self, jobs: Sequence[DeviceJob]) -> None:
        """See protocols.Site."""
        await self._call(self._actor.submit.remote(tuple(jobs)))

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """See protocols.Site."""
        await self._call(self._actor.cancel.remote(tuple(job_ids)))

    async def poll(self, after_seq: int, linger_s: float) -> list[Numbered]:
        """See protocols.Site."""
        events: list[Numbered] = await self._call(self._actor.poll.remote(after_seq, linger_s))
        return events

    async def ensure(self, refs: Sequence[ObjectRef], source: str) -> None:
        """See protocols.Site."""
        await self._call(self._actor.ensure.remote(tuple(refs), source))

    async def close(self) -> None:
        """See protocols.Site."""
        try:
            await self._call(self._actor.close.remote())
        finally:
            ray.kill(self._actor)

    async def _call(self, reference: Any) -> Any:
        try:
            return await reference
        except ray_errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, FarmError):
                raise cause from None
            raise FarmError(f"site {self.name}: {cause or error}") from error
        except ray_errors.RayError as error:
            raise FarmError(f"site {self.name}: its agent was lost: {error}") from error


class _Agent:
    """The actor: an async shell around the plain agent."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._agent = factory()

    async def handshake(self) -> Handshake:
        handshake: Handshake = await self._agent.handshake()
        return handshake

    async def inventory(
        self, entries: tuple[DeviceEntry, ...], adb_auto: bool, limit_s: float, recover: bool
    ) -> list[Device]:
        devices: list[Device] = await self._agent.inventory(
            entries, adb_auto=adb_auto, limit_s=limit_s, recover=recover
        )
        return devices

    async def submit(self, jobs: tuple[DeviceJob, ...]) -> None:
        await self._agent.submit(jobs)

    async def cancel(self, job_ids: tuple[str, ...]) -> None:
        await self._agent.cancel(job_ids)

    async def poll(self, after_seq: int, linger_s: float) -> list[Numbered]:
        events: list[Numbered] = await self._agent.poll(after_seq, linger_s)
        return events

    async def ensure(self, refs: tuple[ObjectRef, ...], source: str) -> None:
        await self._agent.ensure(refs, source)

    async def close(self) -> None:
        await self._agent.close()
