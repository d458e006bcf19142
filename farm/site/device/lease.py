"""The lease that one job holds: renewed in time, also while a long push blocks the connection."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import time
from collections.abc import Callable

from farm.core.errors import LeaseError, TransportError
from farm.core.lease import LeaseOwner
from farm.core.printable import printable
from farm.site.device.helper import DeviceHelper
from farm.site.device.turns import Turns

log = logging.getLogger(__name__)


def user_and_host() -> str:
    """Name whoever runs this process, for people who look at a busy device."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    # A name that is not UTF-8 would come back from a device as another one.
    return printable(f"{user}@{socket.gethostname()}")


class LeaseKeeper:
    """Takes, renews and releases one lease.

    Args:
        owner: The run that takes it.
        turns: Whom its session lets go first; None where the device had no job of it before.
    """

    def __init__(self, owner: LeaseOwner, turns: Turns | None = None) -> None:
        self.owner, self._turns = owner, turns
        self.held = False
        self._renewed_at = 0.0
        #: It is renewed once a third of its time has passed.
        self._renew_after_s = owner.ttl_s / 3

    def take(self, helper: DeviceHelper, say: Callable[..., None] | None = None) -> None:
        """Take the device, when those who wait for it have had their turn.

        Args:
            helper: Helper of the device.
            say: Takes a line for people, as `detail`; needed where there are turns.

        Raises:
            LeaseError: Somebody else has it.
        """
        if self._turns is not None and say is not None:
            self._turns.give_way(helper, self.owner.run_id, say)
        helper.take_lease(self.owner)
        self.held = True
        self._renewed_at = time.monotonic()

    def renew_if_due(self, helper: DeviceHelper) -> None:
        """Renew once a third of the time has passed.

        Raises:
            LeaseError: It isn't ours any more.
        """
        if self.held and time.monotonic() - self._renewed_at >= self._renew_after_s:
            helper.renew_lease(self.owner)
            self._renewed_at = time.monotonic()

    def renew_aside(self, open_helper: Callable[[], DeviceHelper]) -> None:
        """Renew through another connection, while ours is busy with a push or a pull.

        A failure is left to that transfer, which knows better whether the device is there.

        Raises:
            LeaseError: It isn't ours any more.
        """
        if not self.held or time.monotonic() - self._renewed_at < self._renew_after_s:
            return
        helper = open_helper()
        try:
            self.renew_if_due(helper)
        except TransportError:
            # The next try comes half a period later, not with the next piece of the push.
            self._renewed_at = time.monotonic() - self._renew_after_s / 2
        finally:
            helper.transport.close()

    def release(self, helper: DeviceHelper) -> None:
        """Give the device back. One that somebody else has by now costs the job nothing."""
        if not self.held:
            return
        try:
            helper.release_lease(self.owner)
        except LeaseError as error:
            log.warning("the lease was lost before its end: %s", error)
        self.held = False
