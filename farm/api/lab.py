"""The devices that a test session may have, and which test has which at the moment.

On the device a hold keeps other people and their runs away; on this host a lock keeps the tests of
other processes of the same user away, which a hold can't tell apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass

from farm.api.devices import FarmDevice, Note, Place
from farm.clock import Deadline
from farm.commands.hold import kept_hold
from farm.config.load import load_inventory
from farm.core.device import Device
from farm.core.errors import LeaseError
from farm.core.plan import selects
from farm.core.selector import parse_selector
from farm.planning.devices import survey
from farm.protocols import PROBE_LIMIT_S
from farm.site.device.connection import Connection
from farm.site.device.lease import user_and_host

#: Pause before devices that are all taken are asked for again, seconds.
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """Devices that a selector means."""

    usable: tuple[Device, ...]
    #: Why there is none, for people; empty where there is one.
    why: str = ""


class Lab:
    """Devices of one test session.

    Args:
        place: Files of the session.
        select: What holds for every test.
        wait_s: Longest wait for a device that somebody else has.
    """

    def __init__(self, place: Place, select: str, wait_s: float) -> None:
        self._place = place
        self._select, self._wait_s = select, wait_s
        self._devices: tuple[Device, ...] | None = None

    def find(self, select: str) -> Found:
        """Return the devices that a selector means; they are probed once a session.

        Raises:
            ConfigError: Inventory or selector are wrong.
        """
        selector = parse_selector(select)
        if self._devices is None:
            inventory = load_inventory(self._place.inventory)
            self._devices = survey(inventory, self._select, self._place.home, PROBE_LIMIT_S)
        meant = [device for device in self._devices if selects(selector, device)]
        usable = tuple(device for device in meant if device.usable)
        if usable:
            return Found(usable)
        asked = ", ".join(part for part in (self._select, select) if part) or "any device"
        there = meant or self._devices
        seen = "; ".join(f"{d.name}: {d.problem or d.state}" for d in there) or "no device at all"
        return Found((), f"no device for {asked} ({seen})")

    @contextlib.contextmanager
    def taken(self, select: str, test: str, note: Note) -> Iterator[FarmDevice]:
        """Have the first device that is free, for as long as the block runs.

        Args:
            select: Which.
            test: Name of the test, which the device shows to others.
            note: Takes what the test's report shall say.

        Raises:
            LeaseError: All of them are somebody else's until the wait is over; says whose.
            TransportError: One can't be reached any more.
        """
        limit = Deadline(self._wait_s)
        while True:
            busy = []
            for device in self.find(select).usable:
                with contextlib.ExitStack() as stack:
                    try:
                        stack.enter_context(self._locked(device))
                        connection = stack.enter_context(
                            contextlib.closing(Connection(device.entry, self._place.home))
                        )
                        hold = stack.enter_context(
                            contextlib.closing(_Hold(connection, f"test {test}"))
                        )
                    except LeaseError as error:
                        busy.append(error.message)
                        continue
                    taken = FarmDevice(device, connection, hold.lent, self._place, note)
                    yield stack.enter_context(contextlib.closing(taken))
                    return
            if limit.passed:
                raise LeaseError(f"waited {self._wait_s:.0f} s for a device: {'; '.join(busy)}")
            time.sleep(_AGAIN_S)

    @contextlib.contextmanager
    def _locked(self, device: Device) -> Iterator[None]:
        folder = self._place.home / "tests"
        folder.mkdir(parents=True, exist_ok=True)
        identity = device.name if device.facts is None else device.facts.identity
        plain = "".join(c if c.isalnum() else "-" for c in identity)
        with (folder / f"{plain}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LeaseError(
                    f"{device.name} is another test's of this host", device=device.name
                ) from None
            yield


class _Hold:
    """A hold of a device that a run of the test's own may have meanwhile."""

    def __init__(self, connection: Connection, reason: str) -> None:
        self._connection, self._reason = connection, reason
        self._held = contextlib.ExitStack()
        self._take()

    def _take(self) -> None:
        # This host's lock is ours: a hold of a test was left there by one that was killed.
        self._held.enter_context(
            kept_hold(self._connection, self._reason, user_and_host(), over_left=True)
        )

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let a run lease the device, and have it again afterwards.

        Raises:
            LeaseError: Somebody else took it in between.
        """
        self._held.close()
        try:
            yield
        finally:
            self._take()

    def close(self) -> None:
        self._held.close()
