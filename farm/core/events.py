"""Events from a site to a controller. Numbered by the site, kept until acknowledged."""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.artifact import ObjectRef
from farm.core.device import Device
from farm.core.errors import FarmError
from farm.core.runtime import AttemptId, DeviceRunResult

#: What launches so far gave: metric, tok/s, and the relative half width of its 95 % interval
#: (None: too few launches).
Speeds = tuple[tuple[str, float, float | None], ...]


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What every event of a job carries: which attempt it is of, and on which device."""

    attempt_id: AttemptId
    device: str

    @property
    def job_id(self) -> str:
        """The job; unique within its run only."""
        return self.attempt_id.job_id

    @property
    def attempt(self) -> int:
        """Number of the submission within its run and epoch."""
        return self.attempt_id.attempt


@dataclass(frozen=True, slots=True)
class JobStarted(JobEvent):
    """A session has taken the job and is about to lease the device."""

    at: str


@dataclass(frozen=True, slots=True)
class JobProgress(JobEvent):
    """Where a job stands, for people. Never more than a few a second."""

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
    #: Of the launches so far.
    speeds: Speeds = ()
    #: Seconds of the budget for launches that are spent, and all of them; None where none is spent.
    budget: tuple[float, float] | None = None
    #: Degrees Celsius of what decides whether a launch may begin, and its limit (None: it has
    #: none); None of a device that doesn't tell.
    heat: tuple[float, float | None] | None = None


@dataclass(frozen=True, slots=True)
class JobFinished(JobEvent):
    """The terminal event of an attempt: a result or an error, never both."""

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
    """An event with its number; numbers grow by one, per run and agent process."""

    seq: int
    event: SiteEvent


@dataclass(frozen=True, slots=True)
class Handshake:
    """What must agree between controller and site before anything is submitted."""

    protocol: int
    farm_tree_sha256: str
    python: str
    #: Of the agent's process: another one means that it was started anew.
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Polled:
    """Events, and which agent they are from: its numbers mean nothing to another one."""

    boot_id: str
    events: tuple[Numbered, ...]


@dataclass(frozen=True, slots=True)
class Attached:
    """What an agent has of a run when its controller comes, or comes back."""

    boot_id: str
    #: Jobs of the controller's epoch that run, wait, or ended and were not acknowledged.
    jobs: tuple[AttemptId, ...] = ()
    #: Device and run of each job of somebody else.
    others: tuple[tuple[str, str], ...] = ()
    #: Events that the agent could not keep or read again, in words.
    damaged: tuple[str, ...] = ()
