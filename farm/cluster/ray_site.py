"""A site agent as a Ray actor. Its twin without Ray is the agent itself (farm.site.agent)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray import exceptions as ray_errors

from farm.core.artifact import ObjectRef
from farm.core.device import Device, DeviceEntry
from farm.core.errors import FarmError
from farm.core.events import Handshake, Numbered
from farm.core.runtime import DeviceJob
from farm.protocols import PROBE_LIMIT_S

_AGENT_NAME = "farm-site-{site}"


class RaySite:
    """A site agent in a Ray actor, pinned to the node that has its devices.

    Args:
        name: Name of the site, as in the `site:NAME` resource of its node.
        factory: Makes the plain agent inside the actor; picklable.
        detached: The agent belongs to its host, not to this process (joined clusters): others
            use it too, and `close` leaves it alone.
    """

    def __init__(self, name: str, factory: Callable[[], Any], *, detached: bool = False) -> None:
        self.name = name
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
        if self._detached:
            return
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
