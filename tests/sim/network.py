"""The network between controllers and agents: calls that are lost, doubled, late or reordered.

What it does to a call is what Ray's actors show: an answer, an error of the agent, or SiteLost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from farm.core.artifact import ObjectRef
from farm.core.device import Device, DeviceEntry
from farm.core.errors import FarmError, SiteLost, StoreError
from farm.core.events import Attached, Handshake, JobFinished, Numbered, Polled
from farm.core.runtime import AttemptId, DeviceJob
from farm.protocols import PROBE_LIMIT_S, ByteProgress
from tests.sim.world import Process, World

if TYPE_CHECKING:
    from tests.sim.hosts import SimHost

#: A call whose host can't be reached fails after this long, as a dead connection does.
_LOST_S = 20.0


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely it is that something happens to a message."""

    lost: float = 0.0
    doubled: float = 0.0
    #: By up to half a minute; messages overtake each other then.
    late: float = 0.0
    #: An answer with an event of another run's job of the same name among those that were asked.
    stray: float = 0.0


@dataclass
class Network:
    """Carries calls to agents and their answers back."""

    world: World
    weather: Weather
    #: Events that were delivered to other runs, by cell and device.
    seen: dict[tuple[str, str], list[JobFinished]] = field(default_factory=dict)
    #: Jobs that were sent and not seen to end, by run and device.
    under_way: dict[tuple[str, str], AttemptId] = field(default_factory=dict)
    strays: int = 0

    def delay_s(self) -> float:
        """How long a message takes."""
        chance = self.world.chance
        late = chance.random() < self.weather.late
        return chance.uniform(0.001, 0.02) + (chance.uniform(1.0, 30.0) if late else 0.0)

    def is_lost(self) -> bool:
        return self.world.chance.random() < self.weather.lost

    def times(self) -> int:
        """How often a message arrives."""
        return 2 if self.world.chance.random() < self.weather.doubled else 1

    def delivered(self, run_id: str, polled: Polled, after: int) -> Polled:
        """Note what a controller gets, and put a stray among it now and then."""
        for item in polled.events:
            if isinstance(item.event, JobFinished):
                event = item.event
                self.under_way.pop((run_id, event.device), None)
                if event.result is not None:
                    self.seen.setdefault((event.job_id, event.device), []).append(event)
        if self.world.chance.random() >= self.weather.stray:
            return polled
        for (run, device), attempt in sorted(self.under_way.items()):
            others = self.seen.get((attempt.job_id, device), ())
            for other in others:
                if run == run_id != other.attempt_id.run_id:
                    self.strays += 1
                    seq = polled.events[-1].seq if polled.events else after
                    came = replace(attempt, run_id=other.attempt_id.run_id)
                    stray = Numbered(seq, replace(other, attempt_id=came))
                    self.world.note(f"a stray {came} goes to {run_id}")
                    return Polled(polled.boot_id, (*polled.events, stray))
        return polled


class Wire:
    """A site as one controller reaches it. See farm.protocols.Site.

    Args:
        network: What carries the calls.
        owner: The controller.
        host: Where the agent is.
    """

    def __init__(self, network: Network, owner: Process, host: SimHost) -> None:
        self.name = host.name
        self._network, self._owner, self._host = network, owner, host
        self._acknowledged = 0

    async def handshake(self) -> Handshake:
        return await self._call("handshake")  # type: ignore[no-any-return]

    async def inventory(
        self,
        entries: Sequence[DeviceEntry],
        *,
        adb_auto: bool,
        limit_s: float = PROBE_LIMIT_S,
        recover: bool = False,
    ) -> list[Device]:
        return await self._call("inventory", tuple(entries), adb_auto=adb_auto)  # type: ignore[no-any-return]

    async def attach(self, run_id: str, epoch: int) -> Attached:
        return await self._call("attach", run_id, epoch)  # type: ignore[no-any-return]

    async def submit(self, jobs: Sequence[DeviceJob], boot_id: str = "") -> None:
        for job in jobs:
            self._network.under_way[job.run_id, job.device] = job.attempt_id
        await self._call("submit", tuple(jobs), boot_id)

    async def cancel(self, run_id: str, job_ids: Sequence[str]) -> None:
        await self._call("cancel", run_id, tuple(job_ids))

    async def poll(self, run_id: str, after_seq: int, linger_s: float, boot_id: str = "") -> Polled:
        acknowledges = after_seq > self._acknowledged
        if acknowledges:
            self._host.cuts.stand(self._owner, "ack", "before")
        polled: Polled = await self._call("poll", run_id, after_seq, linger_s, boot_id)
        if acknowledges:
            self._host.cuts.stand(self._owner, "ack", "after")
        self._acknowledged = after_seq
        return self._network.delivered(run_id, polled, after_seq)

    async def detach(self, run_id: str) -> None:
        await self._call("detach", run_id)

    async def ensure(
        self, refs: Sequence[ObjectRef], source: str, progress: ByteProgress | None = None
    ) -> tuple[str, ...]:
        """Objects come store to store: no agent is asked, but its host has to be up."""
        return await self._host.ensure(self._network, refs)

    async def collect(self, refs: Sequence[ObjectRef]) -> tuple[str, ...]:
        return ()

    async def close(self) -> None:
        return None

    async def _call(self, name: str, *values: Any, **named: Any) -> Any:
        self._owner.check()
        answer: asyncio.Future[Any] = self._owner.loop.create_future()
        call = _Call(self._network, self._owner, self._host, name, values, named, answer)
        call.send()
        return await answer


@dataclass(eq=False)
class _Call:
    network: Network
    owner: Process
    host: SimHost
    name: str
    values: tuple[Any, ...]
    named: dict[str, Any]
    answer: asyncio.Future[Any]

    def send(self) -> None:
        if self.network.is_lost():
            self.network.world.note(f"{self.name} of {self.owner.name} is lost")
            self._fail(_LOST_S)
            return
        for _ in range(self.network.times()):
            self.network.world.at(self.network.delay_s(), self._arrive)

    def _arrive(self) -> None:
        wait_s = self.host.cut_off_until - self.network.world.now
        if wait_s > _LOST_S:
            self._fail(_LOST_S)
        elif wait_s > 0:  # the connection outlives a short cut
            self.network.world.at(wait_s + self.network.delay_s(), self._arrive)
        elif self.host.process is None or self.host.process.dead:
            self._fail(0.1)
        else:
            process = self.host.process
            self.network.world.note(f"{self.host.name}: {self.name} of {self.owner.name}")
            process.on_death.append(lambda: self._fail(0.1))
            process.start(self._handle(process))

    async def _handle(self, process: Process) -> None:
        value, error = None, None
        try:
            value = await getattr(self.host.agent, self.name)(*self.values, **self.named)
        except FarmError as failure:
            error = failure
        if process.dead:
            return
        if self.network.is_lost():
            self.network.world.note(f"the answer to {self.name} of {self.owner.name} is lost")
            self._fail(_LOST_S)
            return
        self.network.world.at(self.network.delay_s(), lambda: self._return(value, error))

    def _return(self, value: Any, error: FarmError | None) -> None:
        wait_s = self.host.cut_off_until - self.network.world.now
        if wait_s > _LOST_S:
            self._fail(_LOST_S)
        elif wait_s > 0:
            self.network.world.at(wait_s + 0.001, lambda: self._return(value, error))
        else:
            self._deliver(value, error)

    def _fail(self, delay_s: float) -> None:
        error = SiteLost(f"site {self.host.name}: its agent was lost: {self.name}")
        self.network.world.at(delay_s, lambda: self._deliver(None, error))

    def _deliver(self, value: Any, error: FarmError | None) -> None:
        if not self.owner.dead:
            self.owner.loop.call_soon(self._settle, value, error)

    def _settle(self, value: Any, error: FarmError | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(value)
        else:
            self.answer.set_exception(error)


class Cuts:
    """Moments at which somebody is killed: before or after the n-th of something.

    Args:
        world: For the log.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._planned: dict[tuple[str, int, str], Callable[[Process], None]] = {}
        #: How often each moment came.
        self.counted: dict[str, int] = {}

    def plan(self, kind: str, number: int, when: str, act: Callable[[Process], None]) -> None:
        """Call something with the process that comes to this moment, counted from 1."""
        self._planned[kind, number, when] = act

    def stand(self, process: Process, kind: str, when: str) -> None:
        """Be at such a moment; does not return when this process is killed at it."""
        process.check()
        if when == "before":
            self.counted[kind] = self.counted.get(kind, 0) + 1
        act = self._planned.pop((kind, self.counted[kind], when), None)
        if act is not None:
            self._world.note(f"{when} {kind} {self.counted[kind]} of {process.name}")
            act(process)
            process.check()


def no_space(name: str) -> StoreError:
    """The error of a store whose disk is full."""
    return StoreError(f"{name}: no space left on device")
