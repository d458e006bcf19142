"""Hosts with devices: farm's own agent in a process that ends and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from farm.core.artifact import ObjectRef
from farm.core.device import DeviceEntry
from farm.core.errors import SiteLost
from farm.core.events import DeviceChanged, DeviceRecovery, SiteEvent
from farm.site.agent.agent import SiteAgent
from tests.sim.devices import SimDevice, SimRevisitor, SimSession
from tests.sim.network import Cuts, Network, no_space
from tests.sim.world import Process, World

#: Ray has an actor back after so long.
_RESTART_S = 1.3


class SimHost:
    """A host: its disk and devices stay, its agent comes and goes.

    Args:
        world: Where it stands.
        name: Its site's name.
        home: Its FARM_HOME.
        devices: What hangs on it.
        cuts: When somebody is killed.
    """

    def __init__(
        self, world: World, name: str, home: Path, devices: Sequence[SimDevice], cuts: Cuts
    ) -> None:
        self.name, self.home, self.cuts = name, home, cuts
        self._world = world
        self.devices = {device.name: device for device in devices}
        self.process: Process | None = None
        self.agent: SiteAgent | None = None
        self.cut_off_until = self.full_until = self.damages_until = 0.0
        #: How often it went down, with the host tasks that it had.
        self.deaths = 0
        self._boots = 0

    def boot(self) -> None:
        """Start an agent."""
        self._boots += 1
        self.process = Process(self._world, f"{self.name}#{self._boots}")
        self.agent = SiteAgent(self.home, name=self.name, outboxes=self.home / "outboxes")
        # What a dead process leaves open would keep its successor from the files.
        self.process.on_burial.append(self.agent._runs.close)

    def kill_agent(self) -> None:
        """Kill the agent; Ray starts the next one."""
        if self.process is not None and not self.process.dead:
            self.process.kill()
            self._world.at(_RESTART_S, self.boot)

    def power_cut(self, seconds: float) -> None:
        """Take the host down with all that runs there."""
        if self.process is not None and not self.process.dead:
            self.deaths += 1
            self.process.kill()
            self._world.note(f"{self.name} is down for {seconds:.1f} s")
            self._world.at(seconds, self.boot)

    def cut_off(self, seconds: float) -> None:
        """Cut its network."""
        self.cut_off_until = self._world.now + seconds
        self._world.note(f"{self.name} is cut off for {seconds:.1f} s")

    async def ensure(self, network: Network, refs: Sequence[ObjectRef]) -> tuple[str, ...]:
        """Bring objects to it, as farm.cluster.ray_stores does."""
        await asyncio.sleep(network.delay_s() + network.world.chance.uniform(0.05, 3.0))
        now = self._world.now
        if self.process is None or self.process.dead or self.cut_off_until > now:
            raise SiteLost(f"site {self.name}: its store can't be reached")
        if self.full_until > now:
            raise no_space(self.name)
        if self.damages_until > now:  # the next ones are intact: it is asked for again
            await asyncio.sleep(network.world.chance.uniform(0.05, 3.0))
            return (f"{refs[0].name}: 1 damaged chunks came from head; asked for again",)
        return ()

    def session(
        self, entry: DeviceEntry, process: Process, emit: Callable[[SiteEvent], None]
    ) -> SimSession:
        return SimSession(entry, self.devices[entry.name], process, emit)

    def revisitor(
        self, process: Process, emit: Callable[[DeviceChanged | DeviceRecovery], None]
    ) -> SimRevisitor:
        return SimRevisitor(self.devices, process, emit)
