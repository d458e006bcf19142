"""A connection to a device for one step of a deployment, made anew when it breaks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from farm.core.device import DeviceEntry, DeviceFacts
from farm.core.errors import FarmError, TransportError
from farm.core.lease import LeaseOwner
from farm.site.context import Limits, SiteContext
from farm.site.device.connection import Connection
from farm.site.device.helper import DeviceHelper
from farm.site.device.lease import LeaseKeeper
from farm.site.device.supervised import persevere

log = logging.getLogger(__name__)

T = TypeVar("T")


class Session:
    """A connection that is made anew when it breaks; a `Link` for copying."""

    def __init__(self, entry: DeviceEntry, context: SiteContext, owner: LeaseOwner) -> None:
        self.connection = Connection(entry, context.home, context.open_transport)
        self.keeper = LeaseKeeper(owner)
        self._limits = context.limits
        self._cancelled: FarmError | None = None

    @property
    def limits(self) -> Limits:
        """Times that decide about lost devices."""
        return self._limits

    @property
    def helper(self) -> DeviceHelper:
        """The helper through the present connection."""
        if self._cancelled is not None:
            raise self._cancelled
        return self.connection.helper

    @property
    def owner(self) -> LeaseOwner:
        """The lease."""
        return self.keeper.owner

    def call(self, work: Callable[[DeviceHelper], T]) -> T:
        """Make a repeatable call, through a new connection where this one broke."""
        return persevere(self, work)

    @property
    def facts(self) -> DeviceFacts:
        """Facts of the device now."""
        return self.call(lambda _helper: self.connection.snapshot()).facts

    def reconnect(self, error: TransportError, waited_s: float) -> None:
        """Replace the connection."""
        log.info("%s: reconnecting after %.0f s: %s", self.connection.entry.name, waited_s, error)
        if self._cancelled is not None:
            raise self._cancelled
        self.connection.close()
        self.connection = self.connection.reopen()

    def beat(self) -> None:
        """Renew the lease when it is time."""
        persevere(self, self.keeper.renew_if_due)

    def beat_aside(self) -> None:
        """The same while a copy has the connection."""
        self.keeper.renew_aside(lambda: self.connection.reopen().helper)

    def cancel(self, error: FarmError) -> None:
        """End what goes on, from another thread."""
        self._cancelled = error
        self.connection.close()

    def release(self) -> None:
        """Give the device back; one that is gone does that itself, in time."""
        try:
            self.keeper.release(self.connection.helper)
        except TransportError as error:
            log.info("%s: lease not released: %s", self.connection.entry.name, error)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()
