"""What a site sees of its devices now: probed in parallel, each with a hard limit."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Sequence

from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConnectError, DeviceUnfit, FarmError, TransportError
from farm.site.connection import Connection
from farm.site.context import SiteContext
from farm.site.fit import unmet_expectations
from farm.site.helper import LeaseState

log = logging.getLogger(__name__)

#: Longest time a silent device may take, seconds.
PROBE_LIMIT_S = 15.0
#: A hold is a lease with this run id.
HOLD_RUN = "hold"


class Probe:
    """Probing of one device in a thread of its own, with a limit that holds whatever it does."""

    def __init__(self, entry: DeviceEntry, context: SiteContext) -> None:
        self.entry = entry
        self._context = context
        self._done = threading.Event()
        self._device: Device | None = None
        self._connection: Connection | None = None
        self._started_at = 0.0
        self._thread = threading.Thread(
            target=self._run, name=f"farm-probe-{entry.name}", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._started_at = time.monotonic()
        self._thread.start()

    def result(self) -> Device:
        """Wait for the device; one that is silent is given up and its connection closed."""
        while not self._done.wait(min(0.2, max(0.0, self._left_s()))):
            if self._left_s() <= 0:
                break
        if self._device is not None:
            return self._device
        if self._connection is not None:
            self._connection.close()
        return Device(
            self.entry,
            facts=None,
            state="offline",
            reason=f"it didn't answer within {PROBE_LIMIT_S:.0f} s; is it frozen or asleep?",
        )

    def _left_s(self) -> float:
        """Time left for the device. A helper that is compiled meanwhile costs it nothing."""
        connection = self._connection
        if connection is not None and connection.building:
            return PROBE_LIMIT_S
        since = self._started_at
        if connection is not None and connection.built_at is not None:
            since = max(since, connection.built_at)
        return since + PROBE_LIMIT_S - time.monotonic()

    def _run(self) -> None:
        try:
            self._device = self._probe()
        except Exception as error:  # fences one device from the others and records an outcome
            log.exception("probe of %s", self.entry.name)
            self._device = Device(
                self.entry, None, "offline", f"farm itself failed: {type(error).__name__}: {error}"
            )
        finally:
            self._done.set()

    def _probe(self) -> Device:
        entry = self.entry
        try:
            connection = Connection(entry, self._context.home, self._context.open_transport)
            self._connection = connection
            try:
                facts = connection.snapshot().facts
                lease = connection.helper.show_lease()
            finally:
                connection.close()
        except FarmError as error:
            return Device(entry, None, _state(error), error.message)
        unmet = unmet_expectations(entry, facts)
        if unmet:
            return Device(entry, facts, "unfit", "; ".join(unmet), lease.owner)
        state, reason = _lease_state(lease)
        return Device(entry, facts, state, reason, lease.owner if state != "ready" else None)


def probe_all(entries: Sequence[DeviceEntry], context: SiteContext) -> list[Device]:
    """Probe devices in parallel. Blocks for at most the limit of one, whatever they do."""
    probes = [Probe(entry, context) for entry in entries]
    for probe in probes:
        probe.start()
    return [probe.result() for probe in probes]


def merge(named: Sequence[Device], found: Sequence[Device]) -> list[Device]:
    """Make one device of one machine, however many connections lead to it.

    Every named device stays; of two named ones with one identity, both are unfit and name each
    other. A discovered connection to a known machine is dropped; USB comes before Wi-Fi.
    """
    out: list[Device] = []
    by_identity: dict[str, list[Device]] = {}
    for device in named:
        if device.facts is not None:
            by_identity.setdefault(device.facts.identity, []).append(device)
    for device in named:
        same = by_identity.get(device.facts.identity, []) if device.facts else []
        others = [other.name for other in same if other.name != device.name]
        if others:
            identity = same[0].facts.identity if same[0].facts else ""
            device = dataclasses.replace(
                device,
                state="unfit",
                reason=f"the same device as {', '.join(others)} (identity {identity}): remove"
                " one of them from the inventory",
            )
        out.append(device)
    known = set(by_identity)
    for device in sorted(found, key=lambda d: (_is_network(d.entry), d.name)):
        if device.facts is not None:
            if device.facts.identity in known:
                continue
            known.add(device.facts.identity)
        out.append(device)
    return out


def _is_network(entry: DeviceEntry) -> bool:
    return ":" in (entry.serial or "") or "._tcp" in (entry.serial or "")


def _state(error: FarmError) -> str:
    if isinstance(error, DeviceUnfit):
        return "unfit"
    if isinstance(error, ConnectError) and "unauthorized" in error.message:
        return "unauthorized"
    if isinstance(error, TransportError):
        return "offline"
    return "unfit"


def _lease_state(lease: LeaseState) -> tuple[str, str]:
    if lease.state != "held":
        return "ready", ""
    if lease.run_id == HOLD_RUN:
        return "held", f"held by {lease.owner} for {lease.left_s:.0f} s more"
    return "leased", f"leased by {lease.owner} for run {lease.run_id}"
