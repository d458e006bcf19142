"""A device's connection without a job, for what a job does through its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from farm.core.errors import TransportError
from farm.core.lease import LeaseOwner
from farm.site.context import Limits
from farm.site.device.connection import Connection
from farm.site.device.helper import DeviceHelper


@dataclass
class BareLink:
    """The part of a job's connection that fetching needs."""

    connection: Connection
    owner: LeaseOwner
    limits: Limits = field(default_factory=Limits)

    @property
    def helper(self) -> DeviceHelper:
        """The helper of the device."""
        return self.connection.helper

    def reconnect(self, error: TransportError, waited_s: float) -> None:
        """Break off: no break is part of what is measured."""
        raise error

    def beat(self) -> None:
        """Do nothing: the lease is long enough."""

    beat_aside = beat
