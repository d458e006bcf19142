"""Health of a device over time: failures in a row, and when it goes into quarantine. Pure.

A wrong or slow model says nothing about a device; only infrastructure that fails and
measurements that the device itself spoils do.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from farm.core.errors import FarmError, TransportError

if TYPE_CHECKING:  # every look at the devices reads their health, and has to be quick
    from farm.core.result import CellResult

#: Infrastructure failures in a row, and spoilt measurements in a row, that end in quarantine.
FAILURES_LIMIT = 3
SPOILT_LIMIT = 3
#: A probe that succeeds this long after the last failure releases a device, seconds.
COOLDOWN_S = 1800.0
#: Guards by which a device, not a model or a workload, makes a number invalid.
DEVICE_GUARDS = frozenset({"hot_start", "clock_cap", "hidden_cap", "under_voltage", "power_mode"})


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why a device gets no work."""

    reason: str
    #: UTC.
    since: str
    #: `farm`, or who put it there.
    by: str
    #: Released by a later probe; a person's quarantine only by a person.
    until_probe: bool


@dataclass(frozen=True, slots=True)
class Health:
    """What is remembered of one device."""

    name: str
    #: None while it was never reached.
    identity: str | None = None
    failures: int = 0
    spoilt: int = 0
    quarantine: Quarantine | None = None


def is_infrastructure(error: FarmError) -> bool:
    """Tell whether an error speaks against a device or its connection, not against its host."""
    host = "host_fault" in error.context
    return isinstance(error, TransportError) and error.device is not None and not host


def failed(health: Health, reason: str, now: str) -> Health:
    """Count a failure of infrastructure; the last one of a row ends in quarantine."""
    health = replace(health, failures=health.failures + 1)
    if health.failures < FAILURES_LIMIT or health.quarantine is not None:
        return health
    text = f"{health.failures} infrastructure failures in a row, the last: {reason}"
    return replace(health, quarantine=Quarantine(text, now, "farm", until_probe=True))


def worked(health: Health) -> Health:
    """Note that a job ran to its end: the row of failures is over."""
    return replace(health, failures=0)


def measured(health: Health, spoilt_by: tuple[str, ...], now: str) -> Health:
    """Count a measurement; `spoilt_by` names the device's guards that fired."""
    health = replace(health, spoilt=health.spoilt + 1 if spoilt_by else 0)
    if health.spoilt < SPOILT_LIMIT or health.quarantine is not None:
        return health
    text = f"{health.spoilt} invalid measurements in a row: {', '.join(spoilt_by)}"
    return replace(health, quarantine=Quarantine(text, now, "farm", until_probe=True))


def spoilt_by(result: CellResult) -> tuple[str, ...] | None:
    """Guards of the device that made a cell's numbers invalid; None when it has no numbers.

    What disturbs a server or a virtual machine are its neighbours: resting doesn't heal that.
    """
    if not result.performance:
        return None
    if result.conditions.get("device_class") in ("server", "vm"):
        return ()
    fired = {
        name
        for performance in result.performance
        if performance.trust == "invalid"
        for name, state in performance.guards.items()
        if state == "flagged" and name in DEVICE_GUARDS
    }
    return tuple(sorted(fired))


def probed(health: Health, now: str) -> Health:
    """Note that a probe found the device: after the cooldown that releases it."""
    quarantine = health.quarantine
    if quarantine is None or not quarantine.until_probe or _apart_s(quarantine.since, now) < 0:
        return health
    if _apart_s(quarantine.since, now) < COOLDOWN_S:
        return health
    return replace(health, failures=0, spoilt=0, quarantine=None)


def _apart_s(since: str, now: str) -> float:
    moments = [datetime.datetime.fromisoformat(text) for text in (since, now)]
    return (moments[1] - moments[0]).total_seconds()
