"""Quarantine of this FARM_HOME: kept between runs, applied to every look at the devices.

What ends in quarantine is decided in farm.core.rules.health. A device is known by its identity, and
by its name while it can't be reached.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from farm import codec
from farm.clock import utc_now
from farm.core.device import Device
from farm.core.errors import UnknownName
from farm.core.names import meant
from farm.core.rules import health as decide
from farm.core.rules.health import Health, Quarantine
from farm.state.json_file import changed_state, read_state

log = logging.getLogger(__name__)


class HealthBook:
    """What is remembered of devices.

    Args:
        path: File it is kept in.

    Raises:
        StoreError: From every method: the file can't be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[Health]:
        """Return what is known of every device, by name."""
        data = read_state(self._path)
        return [codec.from_data(Health, data[key]) for key in sorted(data)]

    def quarantined(self) -> list[Health]:
        """Return the devices in quarantine."""
        return [health for health in self.all() if health.quarantine is not None]

    def change(
        self, name: str, identity: str | None, decision: Callable[[Health], Health]
    ) -> tuple[Health, Health]:
        """Apply a decision to a device; return its health before and after."""
        with changed_state(self._path) as data:
            key = _key(data, name, identity)
            before = codec.from_data(Health, data[key]) if key in data else Health(name, identity)
            after = replace(decision(before), name=name, identity=identity or before.identity)
            if after != before or key in data:
                data.pop(key, None)
                data[name] = codec.to_data(after)
        return before, after

    def apply(self, devices: Iterable[Device]) -> tuple[Device, ...]:
        """Mark devices in quarantine; those that a probe found after their cooldown are released.

        Called with every fresh look at devices.
        """
        known = self.quarantined()
        if not known:
            return tuple(devices)
        return tuple(self._applied(device, known) for device in devices)

    def add(self, name: str, reason: str, by: str, identity: str | None = None) -> None:
        """Put a device into quarantine until a person releases it."""
        quarantine = Quarantine(reason, utc_now(), by, until_probe=False)
        self.change(name, identity, lambda h: Health(name, h.identity, quarantine=quarantine))

    def release(self, name: str) -> Quarantine:
        """Release a device, its counts begin anew; return what it was in for.

        Raises:
            UnknownName: It isn't in quarantine.
        """
        before, _ = self.change(name, None, lambda h: Health(name, h.identity))
        if before.quarantine is None:
            known = tuple(health.name for health in self.quarantined())
            raise UnknownName(
                f"{name!r} isn't in quarantine; these are: {', '.join(known) or 'none'}"
                f"{meant(name, known)}",
                known=known,
            )
        return before.quarantine

    def _applied(self, device: Device, known: list[Health]) -> Device:
        identity = device.facts.identity if device.facts else None
        if not any(h.name == device.name or (identity and h.identity == identity) for h in known):
            return device
        now, there = utc_now(), device.facts is not None
        _, after = self.change(
            device.name, identity, lambda h: decide.probed(h, now) if there else h
        )
        if after.quarantine is None:
            log.info("%s answers again: released from quarantine", device.name)
            return device
        return in_quarantine(device, after.quarantine)


def in_quarantine(device: Device, quarantine: Quarantine) -> Device:
    """Return the device as one that gets no work."""
    later = " (a probe after its cooldown releases it)" if quarantine.until_probe else ""
    remedy = f"farm quarantine release {device.name}"
    remedy += " --cluster ADDRESS" if device.entry.site else ""
    by = "" if quarantine.by == "farm" else f" by {quarantine.by}"
    trouble = "" if device.facts is not None else f"; now {device.problem or device.state}"
    since = f"{quarantine.since[:16].replace('T', ' ')} UTC"
    reason = f"in quarantine{by} since {since}{later}: {quarantine.reason}{trouble}"
    return device.marked("quarantined", f"{reason}: {remedy}", remedy)


def _key(data: dict[str, object], name: str, identity: str | None) -> str:
    """Key under which a device is kept: its name may have changed since."""
    if name in data or identity is None:
        return name
    for key, value in data.items():
        if isinstance(value, dict) and value.get("identity") == identity:
            return key
    return name
