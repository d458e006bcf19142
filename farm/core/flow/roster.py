"""The devices of a run as they are now: which take work, which are waited for, which are gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from farm.core.device import Device
from farm.core.errors import FarmError, Interrupted, LeaseError, TransportError
from farm.core.plan import Cell
from farm.core.rules.health import FAILURES_LIMIT, is_infrastructure
from farm.core.runtime import AttemptId
from farm.core.tasks import PoolHosts

#: Devices that a reason names at most.
NAMED = 5


class Roster:
    """Devices by name, and what this run knows of them.

    Args:
        devices: The devices of the plan.
        hosts: What names the host of a device that is a host.
    """

    def __init__(self, devices: Iterable[Device], hosts: PoolHosts) -> None:
        self._devices = {device.name: device for device in devices}
        #: Devices that get no more work in this run, and why.
        self._given_up: dict[str, str] = {}
        #: Failures in a row, whichever cells they were of.
        self._failures: dict[str, int] = {}
        #: The one job that a device has now.
        self._at_work: dict[str, AttemptId] = {}
        #: The cell that asks again for a device which somebody else has, by device.
        self._asks: dict[str, str] = {}
        #: Seconds in a row that a person who holds a device was waited for, by device.
        self._waited_s: dict[str, float] = {}
        #: Host by device, of those whose measuring measures a host that tasks may run on.
        self.hosts = {
            device.name: hosts.host_of(device.entry.site)
            for device in self._devices.values()
            if device.entry.transport == "local"
        }
        #: Hosts that are measured now.
        self.measured: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Device:
        return self._devices[name]

    def __contains__(self, name: str) -> bool:
        return name in self._devices

    @property
    def all(self) -> tuple[Device, ...]:
        """Every device as it is now."""
        return tuple(self._devices.values())

    @property
    def at_work(self) -> Mapping[str, AttemptId]:
        """The job that each device has now, by device."""
        return self._at_work

    def is_alive(self, name: str) -> bool:
        """Whether a device answers, or is being recovered."""
        device = self._devices[name]
        return name not in self._given_up and (device.usable or device.state == "recovering")

    def is_free(self, name: str) -> bool:
        """Whether a device can take a job now."""
        taken = name in self._at_work or name in self._asks
        return name not in self._given_up and not taken and self._devices[name].usable

    def changed(self, device: Device) -> None:
        """Take in a fresh look at a device; it says nothing against a quarantine."""
        known = self._devices[device.name]
        if known.state == "quarantined":
            device = device.marked(known.state, known.reason, known.remedy)
        self._devices[device.name] = device

    def quarantined(self, name: str, reason: str) -> None:
        """Give a device no more work, and say why."""
        self._given_up[name] = f"went into quarantine: {reason}"
        self.changed(self._devices[name].marked("quarantined", reason))

    def began(self, name: str, attempt: AttemptId) -> None:
        """Note that a device got a job."""
        self._at_work[name] = attempt
        self._note_hosts(name)

    def ended(self, name: str, error: FarmError | None) -> None:
        """Note that the job of a device is over; too many failures in a row give the device up.

        They count by device, not by cell: the last attempt of a cell that failed elsewhere says
        nothing about the device that it came to.
        """
        del self._at_work[name]
        self._note_hosts(name)
        if isinstance(error, LeaseError | Interrupted):
            return
        self._waited_s.pop(name, None)
        if error is None or not is_infrastructure(error):
            self._failures.pop(name, None)
            return
        self._failures[name] = count = self._failures.get(name, 0) + 1
        if count >= FAILURES_LIMIT:
            text = f"failed {count} jobs in a row, the last: {error.message}"
            self._given_up.setdefault(name, text)

    def refused(self, name: str, cell_id: str, waited_s: float) -> None:
        """Note that somebody else has a device: it gets no job until that cell asks again."""
        self._asks[name], self._waited_s[name] = cell_id, waited_s

    def asks_again(self, name: str, cell_id: str) -> bool:
        """Whether a device waited for this cell; it may get a job again."""
        waited = self._asks.get(name) == cell_id
        if waited:
            del self._asks[name]
        return waited

    def waited_s(self, name: str) -> float:
        """How long a person who holds a device was waited for, seconds."""
        return self._waited_s.get(name, 0.0)

    def _note_hosts(self, name: str) -> None:
        if name in self.hosts:
            working = (host for device, host in self.hosts.items() if device in self._at_work)
            self.measured = frozenset(working)

    def of(self, cell: Cell) -> Device:
        """Return the device of a cell; of a pool, one that stands for all of it."""
        device = self._devices[cell.devices[0]]
        if len(cell.devices) == 1:
            return device
        return replace(device, entry=replace(device.entry, name=cell.place), facts=None)

    def why_gone(self, cell: Cell, taken: Mapping[str, str]) -> tuple[FarmError, str]:
        """Error and flag of a cell that no device is left for: what each of them fails.

        Args:
            cell: The cell.
            taken: Sibling by device, of a pool's cells that ask for different devices.
        """
        why = "; ".join(f"{name} {self._why_not(name, taken)}" for name in cell.devices[:NAMED])
        if len(cell.devices) > NAMED:
            why += f"; and {len(cell.devices) - NAMED} more"
        states = {self._devices[name].state for name in cell.devices}
        flag = "quarantined" if "quarantined" in states else "device_missing"
        return TransportError(f"no device is left for this cell: {why}"), flag

    def _why_not(self, name: str, taken: Mapping[str, str]) -> str:
        device = self._devices[name]
        if name in self._given_up:
            return self._given_up[name]
        if not self.is_alive(name):
            return f"stopped answering during this run ({device.reason or device.state})"
        return f"has {taken[name]}, and each is to run on a device of its own"
