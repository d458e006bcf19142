"""Care for the devices of a run: counts what speaks against them, and keeps what was done.

Between runs it is kept in FARM_HOME. What can't be written there never ends a run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from farm.clock import utc_now
from farm.core.device import Device, Incident
from farm.core.errors import Interrupted, LeaseError, StoreError
from farm.core.events import DeviceChanged, DeviceRecovery, JobFinished
from farm.core.flow.stimuli import DeviceQuarantined
from farm.core.result import CellResult
from farm.core.rules import health as decide
from farm.core.rules.health import Health
from farm.state.health_book import HealthBook

log = logging.getLogger(__name__)


class Care:
    """What a run's events say about its devices.

    Args:
        book: Where it is kept between runs.
        devices: The devices of the plan.
    """

    def __init__(self, book: HealthBook, devices: Iterable[Device]) -> None:
        self._book = book
        self._identities = {d.name: d.facts.identity if d.facts else None for d in devices}
        #: What had to be done, in order.
        self.incidents: list[Incident] = []

    def job_finished(self, event: JobFinished) -> DeviceQuarantined | None:
        """Count a job; returns a quarantine when it was the last one of a bad row."""
        error = event.error
        if isinstance(error, LeaseError | Interrupted):
            return None
        if error is None or not decide.is_infrastructure(error):
            return self._decide(event.device, decide.worked)
        message = error.message
        return self._decide(event.device, lambda h: decide.failed(h, message, event.at))

    def cell_done(self, result: CellResult) -> DeviceQuarantined | None:
        """Count measurements that the device itself spoilt."""
        guards = decide.spoilt_by(result)
        if guards is None:
            return None
        now = utc_now()
        return self._decide(result.device.name, lambda h: decide.measured(h, guards, now))

    def seen(self, event: DeviceChanged) -> DeviceChanged:
        """Take in a fresh look at a device; one in quarantine stays there."""
        if event.device.facts is None or not event.device.usable:
            return event
        try:
            (device,) = self._book.apply([event.device])
        except StoreError as error:
            log.warning("%s", error)
            return event
        return DeviceChanged(device)

    def recovered(self, event: DeviceRecovery) -> str:
        """Keep a recovery step; returns it in words."""
        text = f"{event.step}: {event.detail}"
        self.incidents.append(Incident(event.device, event.at, "recovery", text))
        return f"recovery: {text}"

    def _decide(self, name: str, decision: Callable[[Health], Health]) -> DeviceQuarantined | None:
        if name not in self._identities:
            return None
        try:
            before, after = self._book.change(name, self._identities[name], decision)
        except StoreError as error:
            log.warning("%s", error)
            return None
        quarantine = after.quarantine
        if quarantine is None or before.quarantine is not None:
            return None
        self.incidents.append(Incident(name, quarantine.since, "quarantine", quarantine.reason))
        return DeviceQuarantined(name, quarantine.reason)
