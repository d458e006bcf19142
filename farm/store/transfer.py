"""Objects from one store to another: chunks, a few under way at once, resumed, verified.

One depot serves and fills the store of its host. It knows no network: a source is whatever answers
`has` and `read`, another depot or something that reaches one.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial as bound
from typing import Protocol, TypeVar

from farm.core.artifact import ObjectRef
from farm.core.errors import FarmError, StoreError
from farm.store.objects import ContentStore
from farm.store.partial import Partial, came_bytes, read_object

log = logging.getLogger(__name__)

T = TypeVar("T")

CHUNK_BYTES = 16 << 20
#: Chunks under way at once.
WINDOW = 4
#: A chunk takes at most so long; a source that is slower is left, seconds.
STALL_S = 60.0
#: How often one chunk is asked for.
CHUNK_TRIES = 4
#: Rounds over all sources, and the pause before each further one, seconds.
ROUNDS, ROUND_PAUSE_S = 4, 1.5
#: A source that is only about to fetch an object has so long to begin, seconds.
BEGIN_S = 3.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an object, with the checksum that it left its store with."""

    data: bytes | memoryview
    crc32: int


class ObjectSource(Protocol):
    """A store somewhere else."""

    name: str

    async def has(self, ref: ObjectRef) -> bool:
        """Tell whether it has an object, or is fetching it."""

    async def read(self, ref: ObjectRef, offset: int, length: int) -> Chunk:
        """Return a piece; one that is being fetched there is waited for.

        Raises:
            FarmError: It has none, or can't be reached.
        """


@dataclass(slots=True)
class Fetched:
    """What bringing an object took."""

    name: str
    #: From where, in order; empty when it was there.
    sources: tuple[str, ...] = ()
    came_bytes: int = 0
    #: Bytes of an earlier fetch that were there.
    resumed_bytes: int = 0
    #: Chunks, and whole objects, that arrived damaged and were asked for again.
    corrupted: int = 0

    @property
    def remark(self) -> str | None:
        """What somebody should look at."""
        if not self.corrupted:
            return None
        where = ", ".join(self.sources)
        return f"{self.name}: {self.corrupted} damaged chunks came from {where}; asked for again"


class _SourceFailed(Exception):
    """The other side's fault: the next source goes on."""


class _Coming:
    """A fetch that is under way in this process; others wait for it, or read what has come."""

    def __init__(self) -> None:
        self.partial: Partial | None = None
        self.came = asyncio.Condition()
        self.ended = False

    async def tell(self, *, ended: bool = False) -> None:
        async with self.came:
            self.ended = self.ended or ended
            self.came.notify_all()


class Depot:
    """The store of one host: gives pieces of its objects, and fetches those of others.

    Args:
        name: For people.
        store: The store.
        chunk_bytes: Size of a piece.
    """

    def __init__(self, name: str, store: ContentStore, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.name = name
        self._store, self._chunk_bytes = store, chunk_bytes
        self._coming: dict[str, _Coming] = {}
        self._threads = ThreadPoolExecutor(2 * WINDOW, thread_name_prefix="farm-depot")

    async def missing(self, refs: Sequence[ObjectRef]) -> list[ObjectRef]:
        """Return the objects that are not here, or not intact."""
        return await self._thread(
            lambda: [ref for ref in dict.fromkeys(refs) if not self._is_here(ref)]
        )

    async def has(self, ref: ObjectRef) -> bool:
        """See ObjectSource."""
        if ref.sha256 in self._coming:
            return True
        return await self._thread(bound(self._store.has, ref.sha256, ref.size_bytes))

    async def read(self, ref: ObjectRef, offset: int, length: int) -> Chunk:
        """See ObjectSource.

        Raises:
            StoreError: It isn't here, or was damaged.
        """
        coming = self._coming.get(ref.sha256)
        if coming is not None:
            async with coming.came:
                await coming.came.wait_for(
                    lambda: (
                        coming.ended
                        or (coming.partial is not None and coming.partial.done >= offset + length)
                    )
                )
            part = coming.partial
            if part is not None and part.done >= offset + length:
                data = await self._thread(bound(part.read, offset, length))
                if data is not None:
                    return await self._thread(bound(_chunk_of, data))
        return await self._thread(lambda: _chunk_of(read_object(self._store, ref, offset, length)))

    async def fetch(
        self,
        ref: ObjectRef,
        sources: Sequence[ObjectSource],
        progress: Callable[[int], None] | None = None,
    ) -> Fetched:
        """Bring an object here, from the first source that can give it.

        Args:
            ref: The object.
            sources: Who has it, or is fetching it, best first.
            progress: Called with the bytes that are here.

        Raises:
            StoreError: Nobody could give it, or the disk is full.
        """
        fetched = Fetched(ref.name)
        tell = progress or _silent
        while not await self._thread(bound(self._is_here, ref)):
            other = self._coming.get(ref.sha256)
            if other is not None:
                await self._watch(other, tell)
                continue
            coming = self._coming[ref.sha256] = _Coming()
            try:
                coming.partial = Partial(self._store, ref)
                await self._complete(ref, coming, sources, fetched, tell)
            except BlockingIOError:  # another process of this host fetches it
                tell(await self._thread(bound(came_bytes, self._store, ref)))
                await asyncio.sleep(_LOOK_S)
            finally:
                del self._coming[ref.sha256]
                await coming.tell(ended=True)
                if coming.partial is not None:
                    await self._thread(coming.partial.close)
        tell(ref.size_bytes)
        return fetched

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _watch(self, other: _Coming, tell: Callable[[int], None]) -> None:
        async with other.came:
            while not other.ended:
                await other.came.wait()
                if other.partial is not None:
                    tell(other.partial.done)

    async def _complete(
        self,
        ref: ObjectRef,
        coming: _Coming,
        sources: Sequence[ObjectSource],
        fetched: Fetched,
        tell: Callable[[int], None],
    ) -> None:
        part = coming.partial
        assert part is not None, "made by fetch"
        await self._thread(bound(part.resume, self._chunk_bytes))
        fetched.resumed_bytes = part.done
        problems: dict[str, None] = {}
        for turn in range(ROUNDS):
            if turn:
                await asyncio.sleep(ROUND_PAUSE_S)
            for source in sources:
                try:
                    await self._pull(ref, coming, source, fetched, tell)
                except _SourceFailed as failure:
                    log.info("%s from %s: %s", ref.name, source.name, failure)
                    problems[f"{source.name}: {failure}"] = None
                    continue
                if await self._thread(part.finish):
                    return
                fetched.corrupted += 1
                log.warning("%s from %s: another content than its name", ref.name, source.name)
                problems[f"{source.name}: gave another content"] = None
        why = "; ".join(problems) or "no host has it"
        raise StoreError(
            f"{ref.name} ({ref.sha256[:12]}) could not be brought to {self.name}: {why}",
            sha256=ref.sha256,
        )

    async def _pull(
        self,
        ref: ObjectRef,
        coming: _Coming,
        source: ObjectSource,
        fetched: Fetched,
        tell: Callable[[int], None],
    ) -> None:
        """Take the rest from one source, in order, with a few chunks under way."""
        part = coming.partial
        assert part is not None, "made by fetch"
        await self._begun(ref, source)
        under_way: deque[asyncio.Task[Chunk]] = deque()
        asked = part.done
        try:
            while part.done < ref.size_bytes:
                while asked < ref.size_bytes and len(under_way) < WINDOW:
                    length = min(self._chunk_bytes, ref.size_bytes - asked)
                    one = self._chunk(ref, source, asked, length, fetched)
                    under_way.append(asyncio.ensure_future(one))
                    asked += length
                data = (await under_way.popleft()).data
                size = memoryview(data).nbytes
                await self._thread(bound(part.write, data))
                del data  # one more under way takes its place
                fetched.came_bytes += size
                if source.name not in fetched.sources:
                    fetched.sources = (*fetched.sources, source.name)
                tell(part.done)
                await coming.tell()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _begun(self, ref: ObjectRef, source: ObjectSource) -> None:
        """Wait for a source that is only about to fetch the object itself."""
        try:
            async with asyncio.timeout(BEGIN_S):
                while not await source.has(ref):
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise _SourceFailed("has none") from None
        except FarmError as error:
            raise _SourceFailed(error.message) from error

    async def _chunk(
        self, ref: ObjectRef, source: ObjectSource, offset: int, length: int, fetched: Fetched
    ) -> Chunk:
        for _ in range(CHUNK_TRIES):
            try:
                async with asyncio.timeout(STALL_S):
                    chunk = await source.read(ref, offset, length)
            except TimeoutError:
                raise _SourceFailed(f"gave nothing for {STALL_S:g} s") from None
            except FarmError as error:
                raise _SourceFailed(error.message) from error
            view = memoryview(chunk.data)
            if view.nbytes == length and await self._thread(bound(zlib.crc32, view)) == chunk.crc32:
                return chunk
            fetched.corrupted += 1
            log.warning("%s from %s: chunk at %d is damaged", ref.name, source.name, offset)
        raise _SourceFailed(f"the chunk at {offset} came damaged {CHUNK_TRIES} times")

    def _is_here(self, ref: ObjectRef) -> bool:
        return self._store.has(ref.sha256, ref.size_bytes) and self._store.verify(ref.sha256)

    async def _thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _chunk_of(data: bytes) -> Chunk:
    return Chunk(data, zlib.crc32(data))


def _silent(_done: int) -> None:
    """Nobody wants to know."""
