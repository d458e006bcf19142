"""The content stores of a cluster's hosts, and how objects get from one to another.

One small actor a node serves and fills the store of its host; agents and this process carry no
object. The actors belong to the controller and end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from farm.cluster.fan_out import FanOut
from farm.core.artifact import ObjectRef, StageEvent
from farm.core.errors import FarmError, SiteLost, StoreError
from farm.paths import farm_home, store_root
from farm.protocols import ByteProgress
from farm.store.objects import ContentStore
from farm.store.transfer import Chunk, Depot, Fetched

log = logging.getLogger(__name__)

#: A node takes at most so long to start its depot, or to say what it has, seconds.
_ANSWER_S = 60.0
#: Bytes that the slowest host reads and hashes in a second.
_HASH_BYTES_S = 20e6
#: How often a transfer is looked at, seconds.
_LOOK_S = 0.5


#: Objects, and name and actor of each store that has them.
Offers = tuple[tuple[ObjectRef, tuple[tuple[str, Any], ...]], ...]


class _Peer:
    """Another host's depot, as a source."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name, self._actor = name, actor

    async def has(self, ref: ObjectRef) -> bool:
        return bool(await answer(self._actor.has.remote(ref), self.name))

    async def read(self, ref: ObjectRef, offset: int, length: int) -> Chunk:
        data, crc32 = await answer(self._actor.read.remote(ref, offset, length), self.name)
        return Chunk(memoryview(data), crc32)


class _DepotActor:
    """The actor: a depot of the host that it runs on."""

    def __init__(self, name: str, home: str | None) -> None:
        self._home = Path(home) if home else farm_home()
        self._depot = Depot(name, ContentStore(store_root(self._home)))
        self._came: dict[str, int] = {}

    async def home(self) -> str:
        return str(self._home)

    async def missing(self, refs: tuple[ObjectRef, ...]) -> list[ObjectRef]:
        return await self._depot.missing(refs)

    async def has(self, ref: ObjectRef) -> bool:
        return await self._depot.has(ref)

    async def read(self, ref: ObjectRef, offset: int, length: int) -> tuple[Any, int]:
        import numpy as np  # here only: agents import this file and need none

        chunk = await self._depot.read(ref, offset, length)
        # An array travels through shared memory without another copy; bytes don't.
        return np.frombuffer(chunk.data, dtype=np.uint8), chunk.crc32

    async def fetch(self, ref: ObjectRef, sources: tuple[tuple[str, Any], ...]) -> Fetched:
        peers = [_Peer(name, actor) for name, actor in sources]
        try:
            return await self._depot.fetch(
                ref, peers, lambda done: self._came.update({ref.sha256: done})
            )
        finally:
            self._came.pop(ref.sha256, None)

    async def came(self, sha256: str) -> int:
        return self._came.get(sha256, 0)


async def take_in(offers: Offers, home: Path, emit: Callable[[StageEvent], None]) -> None:
    """Fetch what this host lacks, in a host task.

    Raises:
        StoreError: It did not come, or the disk is full.
    """
    depot = Depot("this host", ContentStore(store_root(home)))
    started = time.monotonic()
    try:
        for ref, sources in offers:

            def progress(done: int, ref: ObjectRef = ref) -> None:
                elapsed_s = time.monotonic() - started
                emit(StageEvent("transfer", done, ref.size_bytes, elapsed_s, ref.name))

            fetched = await depot.fetch(ref, [_Peer(*source) for source in sources], progress)
            if fetched.remark:
                log.warning("%s", fetched.remark)
    finally:
        depot.close()


class RayStores:
    """Stores by Ray's node id; `HERE` is the one of this process.

    Args:
        home: FARM_HOME of this process.
    """

    HERE = "here"

    def __init__(self, home: Path) -> None:
        self._home = home
        self._starting: dict[str, asyncio.Task[Any]] = {}
        self._fan_out = FanOut()

    async def bring(
        self,
        refs: Sequence[ObjectRef],
        to: str,
        progress: ByteProgress | None = None,
        *,
        first: str = HERE,
    ) -> tuple[str, ...]:
        """Make objects present in a node's store, one after the other.

        Args:
            refs: The objects.
            to: The node.
            progress: Called with the bytes that are there.
            first: Who probably has them.

        Returns:
            What somebody should look at.

        Raises:
            StoreError: Nobody has one, or the disk there is full.
            SiteLost: The node is gone.
        """
        node = await self._depot(to)
        missing: list[ObjectRef] = await answer(node.missing.remote(tuple(refs)), _name(to))
        if not missing:
            return ()
        holders = await self._holders(missing, but=to, first=first)
        here = sum(ref.size_bytes for ref in set(refs) - set(missing))
        remarks = []
        for ref in missing:
            with self._fan_out.sources(ref.sha256, to, holders[ref]) as names:
                if not names:
                    raise StoreError(
                        f"{ref.name} ({ref.sha256[:12]}) is needed on {_name(to)}, and no host of"
                        " the cluster has it; run the same command again to make it anew",
                        sha256=ref.sha256,
                    )
                sources = [(_name(name), await self._depot(name)) for name in names]
                fetch = node.fetch.remote(ref, tuple(sources))
                fetched = await self._watched(fetch, node, ref, here, to, progress)
            here += ref.size_bytes
            log.info("%s is on %s: %s", ref.name, _name(to), fetched)
            remarks += [fetched.remark] if fetched.remark else []
        return tuple(remarks)

    async def offers(self, refs: Sequence[ObjectRef]) -> Offers:
        """Say who has objects, for a task that fetches what its node lacks.

        What no host has is left out: whoever needs it says so itself.
        """
        holders = await self._holders(refs, but="", first=self.HERE) if refs else {}
        return tuple(
            [
                (ref, tuple([(_name(name), await self._depot(name)) for name in names]))
                for ref, names in holders.items()
                if names
            ]
        )

    async def _watched(
        self,
        fetch: Any,
        node: Any,
        ref: ObjectRef,
        before: int,
        to: str,
        progress: ByteProgress | None,
    ) -> Fetched:
        """Wait for a fetch, and say how far it is."""
        ending = asyncio.ensure_future(answer(fetch, _name(to)))
        try:
            while not ending.done():
                await asyncio.wait([ending], timeout=_LOOK_S)
                if progress is not None and not ending.done():
                    progress(before + await answer(node.came.remote(ref.sha256), _name(to)))
            fetched: Fetched = ending.result()
            if progress is not None:
                progress(before + ref.size_bytes)
            return fetched
        finally:
            if not ending.done():
                ray.cancel(fetch)
                ending.cancel()

    async def _holders(
        self, refs: Sequence[ObjectRef], *, but: str, first: str
    ) -> dict[ObjectRef, list[str]]:
        """Ask who has these as a whole; further stores only for what the first one lacks."""
        found: dict[ObjectRef, list[str]] = {ref: [] for ref in refs}
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        names = [name for name in (self.HERE, *alive) if name not in (but, first)]
        await self._ask([first] if first != but else [], found)
        left = {ref: who for ref, who in found.items() if not who}
        if left:
            await self._ask(names, left)
        return found

    async def _ask(self, names: list[str], found: dict[ObjectRef, list[str]]) -> None:
        asked = await asyncio.gather(
            *(self._missing(list(found), name) for name in names), return_exceptions=True
        )
        for name, missing in zip(names, asked, strict=True):
            if isinstance(missing, FarmError):
                log.warning("%s was not asked for objects: %s", _name(name), missing)
            elif isinstance(missing, BaseException):
                raise missing
            else:
                for ref in set(found) - missing:
                    found[ref].append(name)

    async def _missing(self, refs: Sequence[ObjectRef], name: str) -> set[ObjectRef]:
        # A store hashes what it says that it has.
        limit_s = _ANSWER_S + sum(ref.size_bytes for ref in refs) / _HASH_BYTES_S
        try:
            async with asyncio.timeout(limit_s):
                depot = await self._depot(name)
                return set(await answer(depot.missing.remote(tuple(refs)), _name(name)))
        except TimeoutError:
            raise SiteLost(f"{_name(name)} did not answer within {limit_s:.0f} s") from None

    async def _depot(self, name: str) -> Any:
        """Return the actor of a store; started with its first use, and again when it died."""
        if name not in self._starting:
            self._starting[name] = asyncio.ensure_future(self._start(name))
        starting = self._starting[name]
        try:
            return await asyncio.shield(starting)
        except FarmError:
            self._starting.pop(name, None)
            raise

    async def _start(self, name: str) -> Any:
        here = ray.get_runtime_context().get_node_id()
        if name == self.HERE:
            # Mostly FARM_HOME of this process and of its node are one folder.
            node = await self._depot(here)
            if await answer(node.home.remote(), _name(name)) == str(self._home):
                return node
        strategy = NodeAffinitySchedulingStrategy(here if name == self.HERE else name, soft=False)
        actor = (
            ray.remote(_DepotActor)
            .options(num_cpus=0, max_restarts=-1, max_concurrency=64, scheduling_strategy=strategy)
            .remote(_name(name), str(self._home) if name == self.HERE else None)
        )
        async with _limit(name):
            await answer(actor.home.remote(), _name(name))
        return actor


@contextlib.asynccontextmanager
async def _limit(name: str) -> Any:
    try:
        async with asyncio.timeout(_ANSWER_S):
            yield
    except TimeoutError:
        raise SiteLost(f"{_name(name)}: no worker started within {_ANSWER_S:g} s") from None


async def answer(reference: Any, where: str) -> Any:
    """Wait for an actor's answer.

    Raises:
        FarmError: Its own error, unchanged.
        SiteLost: The actor or its node is gone.
    """
    try:
        return await reference
    except ray_errors.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, FarmError):
            raise cause from None
        raise FarmError(f"{where}: {cause or error}") from error
    except ray_errors.RayError as error:
        raise SiteLost(f"{where}: its agent was lost: {error}") from error


def _name(node_id: str) -> str:
    """Name a node for people: the host that it is."""
    for node in ray.nodes():
        if node["NodeID"] == node_id:
            sites = [r.removeprefix("site:") for r in node["Resources"] if r.startswith("site:")]
            return f"site {sites[0]}" if sites else f"host {node['NodeManagerHostname']}"
    return "this host" if node_id == RayStores.HERE else f"node {node_id[:8]}"
