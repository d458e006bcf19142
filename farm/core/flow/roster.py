"""The devices of a run as they are now: which take work, which are waited for, which are gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from farm.core.device import Device
from farm.core.errors import FarmError, TransportError
from farm.core.plan import Cell


class Roster:
    """Devices by name, and what this run knows of them.

    Args:
        devices: The devices of the plan.
    """

    def __init__(self, devices: Iterable[Device]) -> None:
        self._devices = {device.name: device for device in devices}
        self._dead: set[str] = set()
        #: Devices that have a job now.
        self._at_work: set[str] = set()

    def __getitem__(self, name: str) -> Device:
        return self._devices[name]

    def __contains__(self, name: str) -> bool:
        return name in self._devices

    @property
    def all(self) -> tuple[Device, ...]:
        """Every device as it is now."""
        return tuple(self._devices.values())

    @property
    def alive(self) -> frozenset[str]:
        """Devices that waiting for makes sense."""
        return frozenset(name for name in self._devices if self.is_alive(name))

    def is_alive(self, name: str) -> bool:
        """Whether a device answers, or is being recovered."""
        device = self._devices[name]
        return name not in self._dead and (device.usable or device.state == "recovering")

    def is_free(self, name: str) -> bool:
        """Whether a device can take a job now."""
        return name not in self._dead and name not in self._at_work and self._devices[name].usable

    def changed(self, device: Device) -> None:
        """Take in a fresh look at a device; it says nothing against a quarantine."""
        known = self._devices[device.name]
        if known.state == "quarantined":
            device = device.marked(known.state, known.reason, known.remedy)
        self._devices[device.name] = device

    def given_up(self, name: str) -> None:
        """Give a device no more work in this run."""
        self._dead.add(name)

    def quarantined(self, name: str, reason: str) -> None:
        """Give a device no more work, and say why."""
        self.given_up(name)
        self.changed(self._devices[name].marked("quarantined", reason))

    def began(self, name: str) -> None:
        """Note that a device got a job."""
        self._at_work.add(name)

    def ended(self, name: str) -> None:
        """Note that the job of a device is over."""
        self._at_work.discard(name)

    def choices(self, cell: Cell, avoid: frozenset[str]) -> frozenset[str]:
        """Devices that may run a cell, those that failed it only where there is no other."""
        alive = frozenset(name for name in cell.devices if self.is_alive(name))
        return (alive - avoid) or alive

    def of(self, cell: Cell) -> Device:
        """Return the device of a cell; of a pool, one that stands for all of it."""
        device = self._devices[cell.devices[0]]
        if len(cell.devices) == 1:
            return device
        return replace(device, entry=replace(device.entry, name=cell.place), facts=None)

    def why_gone(self, cell: Cell) -> tuple[FarmError, str]:
        """Error and flag of a cell none of whose devices is left."""
        for name in cell.devices:
            device = self._devices[name]
            if device.state == "quarantined":
                text = f"{name} went into quarantine: {device.reason}"
                return TransportError(text, device=name), "quarantined"
        why = "; ".join(self._devices[n].reason for n in cell.devices if self._devices[n].reason)
        text = f"{cell.place} stopped answering during this run" + (f": {why}" if why else "")
        return TransportError(text), "device_missing"
