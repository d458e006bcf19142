"""What keeps a device from others: the lease of a run, or the hold of a person. Pure.

On a device both are one file, so that they exclude each other; its run id tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.durations import duration_text

#: Run id in the file of a hold.
HOLD_RUN = "hold"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who asked for the device lately and didn't get it."""

    owner: str
    run_id: str
    #: Seconds since it asked first.
    waits_s: float

    @property
    def text(self) -> str:
        """For people: `bob@desk waits since 3 min for run r8`."""
        what = "to hold it" if self.run_id == HOLD_RUN else f"for run {self.run_id}"
        return f"{self.owner} waits since {duration_text(self.waits_s)} {what}"


@dataclass(frozen=True, slots=True)
class Lease:
    """A run works on the device."""

    #: User and host of the run.
    owner: str
    run_id: str
    #: Seconds of the device's uptime until it expires.
    left_s: float
    waiting: tuple[Waiting, ...] = ()

    @property
    def text(self) -> str:
        """For people: `leased by ci@rack for run r7`."""
        return f"leased by {self.owner} for run {self.run_id}"


@dataclass(frozen=True, slots=True)
class Hold:
    """A person keeps the device."""

    #: The person's user and host.
    owner: str
    #: In the person's words; may be empty.
    reason: str
    #: Seconds until it ends, whether or not the device is restarted meanwhile.
    left_s: float
    waiting: tuple[Waiting, ...] = ()

    @property
    def text(self) -> str:
        """For people: `held by ann@desk: new battery, 1 h 40 min left`."""
        why = f": {self.reason}" if self.reason else ""
        return f"held by {self.owner}{why}, {duration_text(self.left_s)} left"


def read_lease(owner: str, run_id: str, reason: str, left_s: float) -> Lease | Hold:
    """Tell a lease from a hold by the values of the file on the device."""
    if run_id == HOLD_RUN:
        return Hold(owner, reason, left_s)
    return Lease(owner, run_id, left_s)


@dataclass(frozen=True, slots=True)
class LeaseOwner:
    """What every write on a device names, so that only the run that leased it can write."""

    owner: str
    run_id: str
    epoch: int
    #: A lost host blocks a device for at most this long, seconds of the device's uptime.
    ttl_s: float = 60.0

    @property
    def fence(self) -> tuple[str, ...]:
        """Arguments with which a verb fails once another owner has the lease."""
        return ("--run", self.run_id, "--epoch", str(self.epoch))

    @property
    def kept(self) -> tuple[str, ...]:
        """Arguments with which a verb that takes long keeps the lease alive meanwhile."""
        return (*self.fence, *self.time)

    @property
    def time(self) -> tuple[str, str]:
        """Argument with the lease's time."""
        return ("--ttl-s", f"{self.ttl_s:.3f}")
