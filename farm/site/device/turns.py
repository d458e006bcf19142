"""Turns on a device that others wait for, as the device itself tells who asked.

Jobs of one agent stand in its queue. Who has another agent, or is a person, asks the device and is
refused while a job runs; the session whose job has ended lets them go first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from farm.clock import Deadline
from farm.core.lease import Waiting
from farm.core.rules.turns import gives_way
from farm.site.device.helper import DeviceHelper

#: Those who wait ask again every few seconds: so long they are given, seconds.
GIVE_WAY_S = 7.0
_LOOK_S = 0.5
#: The device counts somebody among those who wait for so long after the last time they asked.
_REMEMBERED_S = 30.0


class Turns:
    """What a session knows of those who wait for its device."""

    def __init__(self) -> None:
        #: Who was given way to, until the device has forgotten the request that it was for.
        self._served: dict[tuple[str, str], Deadline] = {}

    def give_way(self, helper: DeviceHelper, run_id: str, say: Callable[..., None]) -> None:
        """Wait a moment for those whose turn it is; whoever took the device refuses the lease.

        Args:
            helper: Helper of the device.
            run_id: The run that is about to take it, and had it before.
            say: Takes a line for people, as `detail`.

        Raises:
            TransportError: The device is gone, or the job was cancelled.
        """
        self._served = {who: end for who, end in self._served.items() if not end.passed}
        first = self._first(helper.waiting(), run_id)
        if first is None:
            return
        deadline = Deadline(GIVE_WAY_S)
        while not deadline.passed and helper.show_lease() is None:
            say(detail=f"lets others go first: {first.text}")
            time.sleep(_LOOK_S)
        self._served[first.owner, first.run_id] = Deadline(_REMEMBERED_S)

    def _first(self, waiting: tuple[Waiting, ...], run_id: str) -> Waiting | None:
        known = self._served
        return gives_way([w for w in waiting if (w.owner, w.run_id) not in known], run_id)
