"""What a site tells the controller. Numbered by the site, kept until acknowledged."""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.artifact import ObjectRef
from farm.core.device import Device
from farm.core.errors import FarmError
from farm.core.runtime import DeviceRunResult


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A session has taken the job and is about to lease the device."""

    job_id: str
    attempt: int
    device: str
    at: str


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Where a job stands, for people. Never more than a few a second."""

    job_id: str
    attempt: int
    device: str
    #: `lease`, `deploy`, `check`, `cooldown`, `measure`, `collect`, `clean`.
    stage: str
    done: int = 0
    #: 0 when the end isn't known.
    total: int = 0
    #: `bytes`, `tokens`, `launches` or empty.
    unit: str = ""
    detail: str = ""
    #: Rate of the latest timed window, tok/s, by metric name.
    rate: tuple[str, float] | None = None


@dataclass(frozen=True, slots=True)
class JobFinished:
    """The terminal event of an attempt: a result or an error, never both."""

    job_id: str
    attempt: int
    device: str
    at: str
    result: DeviceRunResult | None
    error: FarmError | None
    #: Standard output and error of each launch, in the site's content store, for people:
    #: names are `launch-0.stdout`, `launch-0.stderr`.
    logs: tuple[ObjectRef, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A device was found, lost, or changed its state."""

    device: Device


@dataclass(frozen=True, slots=True)
class DeviceRecovery:
    """A recovery step of the inventory was performed on a device that didn't answer."""

    device: str
    #: `reconnect`, `reboot`, or `command: ...`.
    step: str
    at: str
    #: Whether the device answered after it.
    ok: bool
    detail: str


SiteEvent = JobStarted | JobProgress | JobFinished | DeviceChanged | DeviceRecovery


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event with its number; numbers grow by one, per site."""

    seq: int
    event: SiteEvent


@dataclass(frozen=True, slots=True)
class Handshake:
    """What must agree between controller and site before anything is submitted."""

    protocol: int
    farm_tree_sha256: str
    python: str
