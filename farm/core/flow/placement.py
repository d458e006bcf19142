"""Which devices may take a job now, and which of them a queued cell waits for."""

from __future__ import annotations

from collections.abc import Iterable

from farm.core.device import Device
from farm.core.flow.cellstate import CellProgress
from farm.core.flow.matcher import Matcher
from farm.core.flow.roster import Roster
from farm.core.plan import Cell
from farm.core.result import CellResult


class Placement:
    """Queued cells and the devices that they may run on.

    Args:
        devices: The devices of the plan.
        cells: The cells that are to run.
    """

    def __init__(self, devices: Iterable[Device], cells: Iterable[Cell]) -> None:
        self.roster = Roster(devices)
        self.matcher = Matcher()
        #: No device begins before the program that checks its kernels is made, or can't be.
        self.awaits_canary = False
        #: Whether devices that are this host may take work: no host task runs.
        self._quiet = True
        pools = dict.fromkeys(cell.devices for cell in cells)
        #: Devices that cells may run on.
        self.used = tuple(dict.fromkeys(name for pool in pools for name in pool))

    def may_begin(self, name: str) -> bool:
        """Whether a device may take a job now."""
        waits = self.awaits_canary or (name in self.roster.hosts and not self._quiet)
        return self.roster.is_free(name) and not waits

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

    def host_tasks_run(self, running: bool) -> None:
        """Note whether host tasks run: a device that is this host works only when none does."""
        if self._quiet is running:
            self._quiet = not running
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
                self.matcher.add(one.cell.cell_id, devices, one.cell.group)
                return True
        return False

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
