"""The lease that one job holds: renewed in time, also while a long push blocks the connection."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable

from farm.core.errors import TransportError
from farm.site.device.helper import DeviceHelper, LeaseOwner

#: A lost host blocks a device for at most this long, seconds of the device's uptime.
TTL_S = 60.0
RENEW_AFTER_S = 20.0


def user_and_host() -> str:
    """Name whoever runs this process, for people who look at a busy device."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


class LeaseKeeper:
    """Takes, renews and releases one lease.

    Args:
        owner: The run that takes it.
    """

    def __init__(self, owner: LeaseOwner) -> None:
        self.owner = owner
        self.held = False
        self._renewed_at = 0.0

    def take(self, helper: DeviceHelper) -> None:
        """Take the device.

        Raises:
            LeaseError: Somebody else has it.
        """
        helper.take_lease(self.owner, TTL_S)
        self.held = True
        self._renewed_at = time.monotonic()

    def renew_if_due(self, helper: DeviceHelper) -> None:
        """Renew once a third of the time has passed.

        Raises:
            LeaseError: It isn't ours any more.
        """
        if self.held and time.monotonic() - self._renewed_at >= RENEW_AFTER_S:
            helper.renew_lease(self.owner, TTL_S)
            self._renewed_at = time.monotonic()

    def renew_aside(self, open_helper: Callable[[], DeviceHelper]) -> None:
        """Renew through another connection, while ours is busy with a push.

        A failure is left to the push itself, which knows better whether the device is there.

        Raises:
            LeaseError: It isn't ours any more.
        """
        if not self.held or time.monotonic() - self._renewed_at < RENEW_AFTER_S:
            return
        helper = open_helper()
        try:
            self.renew_if_due(helper)
        except TransportError:
            # The next try comes half a period later, not with the next piece of the push.
            self._renewed_at = time.monotonic() - RENEW_AFTER_S / 2
        finally:
            helper.transport.close()

    def release(self, helper: DeviceHelper) -> None:
        """Give the device back."""
        if self.held:
            helper.release_lease(self.owner)
            self.held = False
