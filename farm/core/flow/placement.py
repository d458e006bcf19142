"""Which devices may take a job now, and which of them a queued cell waits for."""

from __future__ import annotations

from collections.abc import Iterable

from farm.core.flow.cellstate import CellProgress
from farm.core.flow.hosttasks import HostTasks
from farm.core.flow.lengths import Lengths
from farm.core.flow.matcher import Matcher
from farm.core.flow.roster import Roster
from farm.core.plan import ArtifactId, Cell
from farm.core.result import CellResult


class Placement:
    """Queued cells and the devices that they may run on.

    Args:
        roster: The devices of the plan.
        used: Those that cells may run on.
        tasks: The host tasks, which keep devices that are their host waiting.
        lengths: How long cells take: the longest goes first.
    """

    def __init__(
        self, roster: Roster, used: Iterable[str], tasks: HostTasks, lengths: Lengths
    ) -> None:
        self.roster, self._tasks, self._lengths = roster, tasks, lengths
        self.used = tuple(used)
        self.matcher = Matcher({name: roster[name].entry.site for name in self.used})
        #: No device begins before the program that checks its kernels is made, or can't be.
        self.awaits_canary = False
        #: Hosts that host tasks may be on, as the devices were offered.
        self._loud: frozenset[str] = frozenset()

    def may_begin(self, name: str) -> bool:
        """Whether a device may take a job now."""
        disturbed = self.roster.hosts.get(name) in self._tasks.loud
        return self.roster.is_free(name) and not self.awaits_canary and not disturbed

    def offer(self, name: str) -> None:
        """Let a device take the next job when it may, and none when it may not."""
        if self.may_begin(name):
            self.matcher.idle(name)
        else:
            self.matcher.busy(name)

    def offer_all(self) -> None:
        """Let every device of the plan that may do so take a job."""
        for name in self.used:
            self.offer(name)

    def tasks_changed(self) -> None:
        """Note where host tasks may be: a device that is such a host works only when none is."""
        if self._loud != self._tasks.loud:
            self._loud = self._tasks.loud
            for name in self.roster.hosts:
                self.offer(name)

    def place(self, one: CellProgress) -> bool:
        """Let a cell wait for a device, one that failed it only where no other is left.

        Returns:
            False when none is left: the cell is not queued.
        """
        taken = self.matcher.taken(one.cell.group)
        for devices in dict.fromkeys((one.devices - one.avoid, one.devices)):
            if any(self.roster.is_alive(name) for name in devices if name not in taken):
                self.matcher.add(
                    one.cell.cell_id,
                    devices,
                    one.cell.group,
                    seconds=self._lengths.of(one.cell),
                    artifact=str(one.cell.artifact),
                )
                return True
        return False

    def has_artifact(self, device: str, artifact: ArtifactId) -> None:
        """Note that a device and its site have an artifact: more of it needs no push."""
        self.matcher.has(device, str(artifact))

    def keep_device(self, cell: Cell, result: CellResult) -> None:
        """Note where a cell of an earlier epoch ran: its siblings go elsewhere."""
        if cell.group:
            self.matcher.take(cell.group, result.device.name, cell.cell_id)

    def give_back(self, one: CellProgress) -> None:
        """Let siblings of a cell have its device: it is to be tried anew, where it may be."""
        if one.cell.group and one.device is not None:
            self.matcher.release(one.cell.group, one.device)

    def left_without(self, name: str) -> list[str]:
        """Take out and return the queued cells whose last device was this one."""
        if self.roster.is_alive(name):
            return []
        return self.matcher.stranded(name, self.roster.is_alive)

    def crowded_out(self, groups: Iterable[str]) -> list[str]:
        """Take out and return the queued cells whose siblings have every device left."""
        alive = self.roster.is_alive
        return [
            cell_id
            for group in dict.fromkeys(groups)
            for cell_id in self.matcher.crowded_out(group, alive)
        ]
