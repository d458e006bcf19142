"""One launch on a device: started detached, followed by long polls, through broken connections.

The job on the device outlives a lost connection, and farm reconnects within a bounded time. After
a restart of the device its job is gone: that counts as a lost device.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from farm.clock import Deadline
from farm.core.errors import (
    ConnectError,
    DeviceError,
    DeviceLost,
    TransportError,
    TransportTimeout,
)
from farm.core.lease import LeaseOwner
from farm.site.context import Limits
from farm.site.device.helper import DeviceHelper, Polled

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How long a fault of a device's host is put up with in one call.
HOST_FAULT_S = 300.0
#: Between two tries to reach a lost device, seconds.
RECONNECT_PAUSE_S = 0.5
#: Largest output of one launch, each of stdout and stderr.
MAX_OUTPUT_BYTES = 16 << 20
POLL_BYTES = 1 << 20
SHORT_POLL_S = 0.5


class Link(Protocol):
    """What a supervised launch needs of its job."""

    @property
    def limits(self) -> Limits:
        """Times that decide about lost devices."""

    @property
    def helper(self) -> DeviceHelper:
        """The helper through the present connection."""

    def reconnect(self, error: TransportError, waited_s: float) -> None:
        """Replace the connection.

        Raises:
            FarmError: The job was cancelled.
        """

    @property
    def owner(self) -> LeaseOwner:
        """The job's lease."""

    def beat(self) -> None:
        """Do what has to be done every few seconds."""

    def beat_aside(self) -> None:
        """The same while a transfer has the connection."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A launch that is over."""

    status: Polled
    stdout: bytes
    #: Whether farm ended it because its time was up.
    timed_out: bool = False


def past_host_faults(call: Callable[[], T], times: int = 6) -> T:
    """Make a repeatable call at the begin of a job, anew where only this host broke it.

    A device that is lost itself isn't looked for: the job has nothing there yet.

    Raises:
        FarmError: What the call raises.
    """
    while True:
        try:
            return call()
        except (ConnectError, DeviceLost) as error:
            if "host_fault" not in error.context or times < 1:
                raise
            times -= 1
            time.sleep(0.5)


def persevere(
    link: Link, call: Callable[[DeviceHelper], T], last_sign: Callable[[], float] = lambda: 0.0
) -> T:
    """Make a repeatable call; reconnect to a device whose connection broke.

    Args:
        link: The job's connection.
        call: Repeated from its beginning after a break.
        last_sign: When the device last moved a byte, on the monotonic clock: a long transfer
            may break more than once.

    Raises:
        DeviceLost: It didn't come back in time, or lost its memory.
        FarmError: Whatever else the call raises.
    """
    lost_at: float | None = None
    blamed_at: float | None = None
    limit_s = link.limits.reconnect_s
    while True:
        try:
            return call(link.helper)
        except (ConnectError, DeviceLost, TransportTimeout) as error:
            if "code" in error.context:
                raise  # the device itself says that the job is gone
            host = {k: v for k, v in error.context.items() if k in ("host_fault", "remedy")}
            now = time.monotonic()
            if "host_fault" in host:
                # The device answered until its host cut it off: it isn't looked for any longer.
                blamed_at, lost_at = blamed_at or now, now
            lost_at = max(lost_at or now, last_sign())
            waited = now - lost_at
            if waited >= limit_s or (blamed_at and now - blamed_at >= HOST_FAULT_S):
                raise DeviceLost(
                    f"{link.helper.device} didn't come back within {limit_s:.0f} s: {error}",
                    device=link.helper.device,
                    **host,
                ) from error
            link.reconnect(error, waited)
            time.sleep(RECONNECT_PAUSE_S)
        except DeviceError as error:
            if error.context.get("exit_code") in (126, 127):
                raise DeviceLost(
                    f"{link.helper.device} has no farm-helper any more: it was restarted or wiped",
                    device=link.helper.device,
                ) from error
            raise


def launch(
    link: Link,
    work: str,
    argv: Sequence[str],
    env: Sequence[tuple[str, str]],
    *,
    telemetry_s: float = 0.0,
) -> None:
    """Start a program in a work folder once, also where the answer is lost on its way.

    Raises:
        RunnerCrashed: It can't be started.
        DeviceLost: The device is gone, or was restarted.
        LeaseError: The device was taken from us.
    """
    start = secrets.token_hex(16)
    persevere(
        link,
        lambda helper: helper.supervise(
            work,
            argv,
            env=env,
            stale_s=link.limits.stale_s,
            max_output_bytes=MAX_OUTPUT_BYTES,
            lease=link.owner,
            telemetry_s=telemetry_s,
            start=start,
        ),
    )


def follow(link: Link, work: str, limit_s: float, on_line: Callable[[bytes], None]) -> Ended:
    """Poll a started launch until it ends; one whose time is up is ended.

    Args:
        link: The job's connection.
        work: Work folder on the device.
        limit_s: Time for the whole launch, seconds.
        on_line: Called with each complete line that may be a JSON object.

    Raises:
        DeviceLost: The device is gone, or was restarted.
        LeaseError: The device was taken from us.
    """
    deadline = Deadline(limit_s)
    stdout = bytearray()
    rest = b""
    timed_out = False
    broken = False

    def poll(helper: DeviceHelper) -> Polled:
        # After a break a short one: what breaks every few seconds would never let a long one end.
        nonlocal broken
        longest = SHORT_POLL_S if broken else link.limits.poll_s
        broken = True
        wait_s = min(longest, deadline.remaining_s)
        found = helper.poll(work, offset=len(stdout), wait_s=wait_s, max_bytes=POLL_BYTES)
        broken = False
        return found

    while True:
        polled = persevere(link, poll)
        stdout += polled.output
        *lines, rest = (rest + polled.output).split(b"\n")
        for line in lines:
            if line.startswith(
                b"{"
            ):  # progress and samples are JSON objects; other lines may have no end
                on_line(line)
        if polled.state != "running" and len(stdout) >= polled.stdout_size:
            return Ended(polled, bytes(stdout), timed_out)
        if deadline.passed and not timed_out:
            timed_out = True
            persevere(link, partial(DeviceHelper.kill, work=work))
        link.beat()
