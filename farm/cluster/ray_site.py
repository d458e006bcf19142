"""A site agent as a Ray actor. Its twin without Ray is the agent itself (farm.site.agent)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from farm.cluster.ray_stores import RayStores, answer
from farm.core.artifact import ObjectRef
from farm.core.device import Device, DeviceEntry
from farm.core.events import Attached, Handshake, Polled
from farm.core.runtime import DeviceJob
from farm.protocols import PROBE_LIMIT_S, ByteProgress

_AGENT_NAME = "farm-site-{site}"


class RaySite:
    """A site agent in a Ray actor, pinned to the node that has its devices.

    Args:
        name: Name of the site, as in the `site:NAME` resource of its node.
        factory: Makes the plain agent inside the actor; picklable.
        detached: The agent belongs to its host, not to this process (joined clusters): others
            use it too, and `close` leaves it alone.
        stores: How objects get to its host and back; None where that is this host.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[[], Any],
        *,
        detached: bool = False,
        stores: RayStores | None = None,
    ) -> None:
        self.name = name
        self._stores = stores
        self._detached = detached
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

    async def attach(self, run_id: str, epoch: int) -> Attached:
        """See protocols.Site."""
        attached: Attached = await self._call(self._actor.attach.remote(run_id, epoch))
        return attached

    async def submit(self, jobs: Sequence[DeviceJob], boot_id: str = "") -> None:
        """See protocols.Site."""
        await self._call(self._actor.submit.remote(tuple(jobs), boot_id))

    async def cancel(self, run_id: str, job_ids: Sequence[str]) -> None:
        """See protocols.Site."""
        await self._call(self._actor.cancel.remote(run_id, tuple(job_ids)))

    async def poll(self, run_id: str, after_seq: int, linger_s: float, boot_id: str = "") -> Polled:
        """See protocols.Site."""
        polled: Polled = await self._call(
            self._actor.poll.remote(run_id, after_seq, linger_s, boot_id)
        )
        return polled

    async def detach(self, run_id: str) -> None:
        """See protocols.Site."""
        await self._call(self._actor.detach.remote(run_id))

    async def ensure(
        self, refs: Sequence[ObjectRef], source: str, progress: ByteProgress | None = None
    ) -> tuple[str, ...]:
        """See protocols.Site."""
        if self._stores is None:
            remarks: tuple[str, ...] = await self._call(
                self._actor.ensure.remote(tuple(refs), source)
            )
            return remarks
        return await self._stores.bring(refs, await self._node(), progress)

    async def collect(self, refs: Sequence[ObjectRef]) -> tuple[str, ...]:
        """See protocols.Site."""
        if self._stores is None:
            return ()
        return await self._stores.bring(refs, RayStores.HERE, first=await self._node())

    async def close(self) -> None:
        """See protocols.Site."""
        if self._detached:
            return
        try:
            await self._call(self._actor.close.remote())
        finally:
            ray.kill(self._actor)

    async def _node(self) -> str:
        """Return the node that the agent is on; a node that comes back is another one to Ray."""
        node: str = await self._call(self._actor.node.remote())
        return node

    async def _call(self, reference: Any) -> Any:
        return await answer(reference, f"site {self.name}")


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

    async def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    async def attach(self, run_id: str, epoch: int) -> Attached:
        attached: Attached = await self._agent.attach(run_id, epoch)
        return attached

    async def submit(self, jobs: tuple[DeviceJob, ...], boot_id: str) -> None:
        await self._agent.submit(jobs, boot_id)

    async def cancel(self, run_id: str, job_ids: tuple[str, ...]) -> None:
        await self._agent.cancel(run_id, job_ids)

    async def poll(self, run_id: str, after_seq: int, linger_s: float, boot_id: str) -> Polled:
        polled: Polled = await self._agent.poll(run_id, after_seq, linger_s, boot_id)
        return polled

    async def detach(self, run_id: str) -> None:
        await self._agent.detach(run_id)

    async def ensure(self, refs: tuple[ObjectRef, ...], source: str) -> tuple[str, ...]:
        remarks: tuple[str, ...] = await self._agent.ensure(refs, source)
        return remarks

    async def close(self) -> None:
        await self._agent.close()
