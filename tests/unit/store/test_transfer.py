"""Objects from store to store: cut, damaged, resumed, shared, refused. Real stores, no network."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from farm.cluster.fan_out import FanOut
from farm.core.artifact import ObjectRef
from farm.core.errors import DeviceError, SiteLost, StoreError
from farm.store import transfer
from farm.store.objects import ContentStore
from farm.store.transfer import WINDOW, Chunk, Depot

CHUNK = 64 << 10
#: Not a whole number of chunks.
SIZE = 20 * CHUNK + 777


class Link:
    """Another host's depot as it is reached: what `act` does to each chunk happens on the way."""

    def __init__(self, depot: Depot, act: Callable[[int, Chunk], Chunk] | None = None) -> None:
        self.depot, self.name, self.act = depot, depot.name, act
        self.reads: list[int] = []
        self.most_under_way = 0
        self._under_way = 0

    async def has(self, ref: ObjectRef) -> bool:
        return await self.depot.has(ref)

    async def read(self, ref: ObjectRef, offset: int, length: int) -> Chunk:
        self.reads.append(offset // CHUNK)
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        try:
            chunk = await self.depot.read(ref, offset, length)
        finally:
            self._under_way -= 1
        return chunk if self.act is None else self.act(offset // CHUNK, chunk)


class Hosts:
    """Hosts with a store each; the first one has the object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Depot] = []
        self.source = self.depot("source")
        self.ref = self.store("source").put_bytes(os.urandom(SIZE), "model.pte")

    def store(self, name: str) -> ContentStore:
        return ContentStore(self.folder / name)

    def depot(self, name: str) -> Depot:
        self.made.append(Depot(name, self.store(name), chunk_bytes=CHUNK))
        return self.made[-1]

    def run(self, scenario: Coroutine[object, object, None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(20):
                await scenario

        try:
            asyncio.run(limited())
        finally:
            for depot in self.made:
                depot.close()

    def assert_whole(self, name: str) -> None:
        content = self.store(name).path(self.ref).read_bytes()
        assert content == self.store("source").path(self.ref).read_bytes()
        assert list((self.folder / name / "partial").iterdir()) == []


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.setattr(transfer, "BEGIN_S", 0.2)
    monkeypatch.setattr(transfer, "ROUND_PAUSE_S", 0.01)
    return Hosts(tmp_path)


def cut_after(count: int) -> Callable[[int, Chunk], Chunk]:
    def act(number: int, chunk: Chunk) -> Chunk:
        if number >= count:
            raise SiteLost("the node is gone")
        return chunk

    return act


def test_an_object_comes_once_in_order_and_whole(hosts: Hosts) -> None:
    async def scenario() -> None:
        seen: list[int] = []
        link = Link(hosts.source)
        fetched = await hosts.depot("b").fetch(hosts.ref, [link], seen.append)
        assert fetched.came_bytes == SIZE
        assert (fetched.sources, fetched.corrupted, fetched.remark) == (("source",), 0, None)
        assert seen == sorted(seen)
        assert seen[-1] == SIZE
        assert link.reads == list(range(21))
        assert link.most_under_way == WINDOW
        again = await hosts.depot("b").fetch(hosts.ref, [link])
        assert again.came_bytes == 0

    hosts.run(scenario())
    hosts.assert_whole("b")


@pytest.mark.parametrize("where", ["byte", "short"])
def test_a_damaged_chunk_is_asked_for_again_and_counted(hosts: Hosts, where: str) -> None:
    good = set(range(21)) - {3, 9}

    def damage(number: int, chunk: Chunk) -> Chunk:
        if number in good:
            return chunk
        good.add(number)
        data = bytes(chunk.data)
        return Chunk(data[:-1] if where == "short" else b"\0\1" + data[2:], chunk.crc32)

    async def scenario() -> None:
        fetched = await hosts.depot("b").fetch(hosts.ref, [Link(hosts.source, damage)])
        assert fetched.corrupted == 2
        assert fetched.remark is not None
        assert "2 damaged chunks came from source" in fetched.remark

    hosts.run(scenario())
    hosts.assert_whole("b")


def test_a_link_that_damages_everything_is_left_for_another(hosts: Hosts) -> None:
    def damage(_number: int, chunk: Chunk) -> Chunk:
        return Chunk(chunk.data, chunk.crc32 ^ 1)

    async def scenario() -> None:
        good = Link(hosts.source)
        fetched = await hosts.depot("b").fetch(hosts.ref, [Link(hosts.source, damage), good])
        assert fetched.corrupted >= transfer.CHUNK_TRIES
        assert good.reads == list(range(21))
        with pytest.raises(StoreError, match="came damaged 4 times"):
            await hosts.depot("c").fetch(hosts.ref, [Link(hosts.source, damage)])

    hosts.run(scenario())
    hosts.assert_whole("b")


def test_damage_that_no_chunk_shows_is_found_at_the_end(hosts: Hosts) -> None:
    """The source read wrong bytes and sums them up rightly: only the object's hash tells."""

    class Liar(Link):
        async def read(self, ref: ObjectRef, offset: int, length: int) -> Chunk:
            self.reads.append(offset // CHUNK)
            return transfer._chunk_of(bytes(length))

    async def scenario() -> None:
        liar = Liar(hosts.source)
        fetched = await hosts.depot("b").fetch(hosts.ref, [liar, Link(hosts.source)])
        assert fetched.corrupted == 1
        assert fetched.sources == ("source",)
        with pytest.raises(StoreError, match="gave another content"):
            await hosts.depot("c").fetch(hosts.ref, [liar])

    hosts.run(scenario())
    hosts.assert_whole("b")
    assert not hosts.store("c").has(hosts.ref.sha256)


def test_a_damaged_object_is_given_to_nobody(hosts: Hosts) -> None:
    path = hosts.store("source").location(hosts.ref.sha256)
    content = bytearray(path.read_bytes())
    content[CHUNK + 5] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)

    async def scenario() -> None:
        with pytest.raises(StoreError, match="damaged"):
            await hosts.depot("b").fetch(hosts.ref, [Link(hosts.depot("source"))])

    hosts.run(scenario())


def test_a_cut_transfer_goes_on_where_it_was(hosts: Hosts) -> None:
    async def scenario() -> None:
        cut = Link(hosts.source, cut_after(7))
        whole = Link(hosts.source)
        fetched = await hosts.depot("b").fetch(hosts.ref, [cut, whole])
        assert fetched.came_bytes == SIZE
        assert whole.reads == list(range(7, 21))

    hosts.run(scenario())
    hosts.assert_whole("b")


def test_a_fetch_that_was_killed_is_resumed_by_the_next_process(hosts: Hosts) -> None:
    async def scenario() -> None:
        with pytest.raises(StoreError, match="the node is gone"):
            await hosts.depot("b").fetch(hosts.ref, [Link(hosts.source, cut_after(7))])
        left = hosts.folder / "b" / "partial" / hosts.ref.sha256
        assert left.stat().st_size == 7 * CHUNK
        with left.open("ab") as file:  # half a chunk, as a kill leaves it
            file.write(b"x" * 100)
        link = Link(hosts.source)
        fetched = await hosts.depot("b").fetch(hosts.ref, [link])
        assert fetched.resumed_bytes == 7 * CHUNK
        assert link.reads == list(range(7, 21))

    hosts.run(scenario())
    hosts.assert_whole("b")


def test_what_was_left_damaged_on_the_disk_comes_anew(hosts: Hosts) -> None:
    async def scenario() -> None:
        folder = hosts.folder / "b" / "partial"
        folder.mkdir(parents=True)
        (folder / hosts.ref.sha256).write_bytes(bytes(3 * CHUNK))
        fetched = await hosts.depot("b").fetch(hosts.ref, [Link(hosts.source)])
        assert (fetched.resumed_bytes, fetched.corrupted) == (3 * CHUNK, 1)

    hosts.run(scenario())
    hosts.assert_whole("b")


def test_a_cancelled_fetch_lets_the_next_one_go_on(hosts: Hosts) -> None:
    async def scenario() -> None:
        depot = hosts.depot("b")
        begun = asyncio.Event()
        fetch = asyncio.ensure_future(
            depot.fetch(hosts.ref, [Link(hosts.source)], lambda _done: begun.set())
        )
        await begun.wait()
        fetch.cancel()
        await asyncio.gather(fetch, return_exceptions=True)
        assert fetch.cancelled()
        fetched = await depot.fetch(hosts.ref, [Link(hosts.source)])
        assert fetched.resumed_bytes >= CHUNK

    hosts.run(scenario())
    hosts.assert_whole("b")


def test_one_transfer_an_object_and_host(hosts: Hosts) -> None:
    """Two fetches of one process, and one of another process of the same host."""

    async def scenario() -> None:
        link = Link(hosts.source)
        one, other = hosts.depot("b"), hosts.depot("b")
        fetched = await asyncio.gather(
            one.fetch(hosts.ref, [link]),
            one.fetch(hosts.ref, [link]),
            other.fetch(hosts.ref, [link]),
        )
        assert sum(item.came_bytes for item in fetched) == SIZE
        assert sorted(link.reads) == list(range(21))

    hosts.run(scenario())
    hosts.assert_whole("b")


def test_who_waits_for_a_fetch_that_fails_tries_itself(hosts: Hosts) -> None:
    async def scenario() -> None:
        depot = hosts.depot("b")
        begun, cut = asyncio.Event(), cut_after(2)

        def act(number: int, chunk: Chunk) -> Chunk:
            begun.set()
            return cut(number, chunk)

        first = asyncio.ensure_future(depot.fetch(hosts.ref, [Link(hosts.source, act)]))
        await begun.wait()
        second = asyncio.ensure_future(depot.fetch(hosts.ref, [Link(hosts.source)]))
        failed, fetched = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(failed, StoreError)
        assert not isinstance(fetched, BaseException)

    hosts.run(scenario())
    hosts.assert_whole("b")


def test_nobody_has_it(hosts: Hosts) -> None:
    async def scenario() -> None:
        with pytest.raises(StoreError, match=r"model\.pte .*no host has it"):
            await hosts.depot("b").fetch(hosts.ref, [])
        with pytest.raises(StoreError, match="c: has none"):
            await hosts.depot("b").fetch(hosts.ref, [Link(hosts.depot("c"))])

    hosts.run(scenario())


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_full_disk_is_the_hosts_fault_and_is_not_filled_with_rubbish(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    if when == "before":
        monkeypatch.setattr("farm.store.objects.free_bytes", lambda _path: SIZE)
    else:
        real = os.pwrite

        def full(handle: int, data: memoryview, offset: int) -> int:
            if offset >= 5 * CHUNK:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(handle, data, offset)

        monkeypatch.setattr("os.pwrite", full)

    async def scenario() -> None:
        link = Link(hosts.source)
        with pytest.raises(StoreError, match="no space for the content store") as failed:
            await hosts.depot("b").fetch(hosts.ref, [link, link])
        assert not isinstance(failed.value, DeviceError)
        assert failed.value.device is None
        assert len(link.reads) <= 5 + WINDOW  # no other source can help
        assert list((hosts.folder / "b" / "partial").iterdir()) == []

    hosts.run(scenario())


def test_four_hosts_take_hardly_longer_than_one_and_the_source_gives_it_once(
    hosts: Hosts,
) -> None:
    """Each host sends and receives over a link of its own; those that still fetch give on."""
    pace_s = 0.02

    class Nic:
        def __init__(self) -> None:
            self.busy = asyncio.Lock()
            self.sent = 0

    class Shaped(Link):
        def __init__(self, depot: Depot, nic: Nic) -> None:
            super().__init__(depot)
            self.nic = nic

        async def read(self, ref: ObjectRef, offset: int, length: int) -> Chunk:
            chunk = await self.depot.read(ref, offset, length)
            async with self.nic.busy:
                await asyncio.sleep(pace_s * length / CHUNK)
            self.nic.sent += length
            return chunk

    async def scenario() -> None:
        names = ["source", *"abcd"]
        nics = {name: Nic() for name in names}
        depots = {name: hosts.source if name == "source" else hosts.depot(name) for name in names}
        fan_out = FanOut()

        async def bring(to: str) -> None:
            with fan_out.sources(hosts.ref.sha256, to, ["source"]) as sources:
                links = [Shaped(depots[name], nics[name]) for name in sources]
                await depots[to].fetch(hosts.ref, links)

        started = time.monotonic()
        await asyncio.gather(*(bring(name) for name in "abcd"))
        took = time.monotonic() - started
        assert took < 2.5 * 21 * pace_s
        assert nics["source"].sent <= 1.2 * SIZE

    hosts.run(scenario())
    for name in "abcd":
        hosts.assert_whole(name)


def test_nobody_waits_for_whoever_waits_for_him() -> None:
    fan_out = FanOut()
    with fan_out.sources("x", "a", ["s"]) as first:
        assert first == ["s"]
        with fan_out.sources("x", "b", ["s"]) as second:
            assert second == ["a", "s"]  # a gives nothing yet
            with fan_out.sources("x", "c", ["s"]) as third:
                assert third == ["b", "s", "a"]
            with fan_out.sources("x", "a", ["s", "b"]) as again:
                assert "a" not in again
    with fan_out.sources("x", "a", []) as none:
        assert none == []
    assert fan_out._fetching == {}
    assert not fan_out._giving
