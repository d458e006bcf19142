"""What a site sees of its devices now: probed in parallel, each with a hard limit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from farm.clock import Deadline
from farm.core.device import Device, DeviceEntry, DeviceFacts, Holder, InQueue
from farm.core.errors import ConnectError, FarmError, TransportError
from farm.core.lease import HOLD_RUN, Hold, Lease
from farm.core.rules.turns import served
from farm.protocols import PROBE_LIMIT_S, Transport
from farm.site.agent.discovery import unlooked
from farm.site.context import SiteContext
from farm.site.device.answered import AnsweredTransport
from farm.site.device.connection import Connection, Snapshot

log = logging.getLogger(__name__)

#: A healthy adb server lists its devices well within this time on the busiest host, seconds.
DISCOVERY_S = 3.0
#: How often a probe that a fault of this host broke is begun anew, and the pause before.
_AGAIN, _AGAIN_S = 4, 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """What was asked and found of this host's devices before its agent was there."""

    entries: tuple[DeviceEntry, ...]
    adb_auto: bool
    devices: tuple[Device, ...]


class Probe:
    """Probing of one device in a thread of its own, with a limit that no device can exceed.

    Args:
        entry: The device.
        context: Folders and factories of this host.
        limit_s: How long it may be silent. One that goes on answering has `PROBE_LIMIT_S` in all.
        glance: Whether that was asked to be short, so that more time may help.
    """

    def __init__(
        self,
        entry: DeviceEntry,
        context: SiteContext,
        limit_s: float = PROBE_LIMIT_S,
        *,
        glance: bool = False,
    ) -> None:
        self.entry = entry
        self._limit_s, self._glance = limit_s, glance
        self._context = context
        self._done = threading.Event()
        self._device: Device | None = None
        self._connection: Connection | None = None
        self._transport: AnsweredTransport | None = None
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
            # Not waited for: closing a frozen connection may take a second of its own.
            threading.Thread(target=self._connection.close, daemon=True).start()
        remedy = "is it frozen or asleep?"
        if self._glance:
            remedy += f" `farm devices --wait {PROBE_LIMIT_S:g}` gives it longer"
        return Device(
            self.entry,
            facts=None,
            state="offline",
            reason=f"it didn't answer within {self._limit_s:g} s; {remedy}",
            remedy=remedy,
        )

    def _left_s(self) -> float:
        """Time left for the device. A helper that is compiled meanwhile costs it nothing."""
        connection = self._connection
        if connection is not None and connection.building:
            return self._limit_s
        since = self._started_at
        if connection is not None and connection.built_at is not None:
            since = max(since, connection.built_at)
        answered = since if self._transport is None else max(since, self._transport.answered_at)
        ends = min(answered + self._limit_s, since + max(PROBE_LIMIT_S, self._limit_s))
        return ends - time.monotonic()

    def _open(self, entry: DeviceEntry) -> Transport:
        self._transport = AnsweredTransport(self._context.open_transport(entry))
        return self._transport

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

    def _probe(self, again: int = _AGAIN) -> Device:
        entry = self.entry
        try:
            connection = Connection(entry, self._context.home, self._open)
            self._connection = connection
            try:
                snapshot = connection.snapshot()
                lease = connection.helper.show_lease()
            finally:
                connection.close()
        except FarmError as error:
            if error.context.get("host_fault") and again > 0:
                # The device isn't to blame: another program ended the host's adb server.
                time.sleep(_AGAIN_S)
                return self._probe(again - 1)
            remedy = str(error.context.get("remedy", ""))
            return Device(entry, None, _state(error), error.message, remedy=remedy)
        return _seen(entry, snapshot, lease)


def _seen(entry: DeviceEntry, snapshot: Snapshot, lease: Lease | Hold | None) -> Device:
    holder = None
    state, reason, remedy = "ready", "", ""
    queue: list[InQueue] = []
    if lease is not None:
        reason = "; ".join([lease.text, *(waiting.text for waiting in lease.waiting)])
        queue = [InQueue(w.run_id, w.owner, None, None, w.waits_s) for w in served(lease.waiting)]
    match lease:
        case Hold(owner=owner, reason=why, left_s=left_s):
            state, holder = "held", Holder(owner, HOLD_RUN, why, left_s)
            remedy = f"wait, or: farm devices release {entry.name} --from {owner} --force"
        case Lease(owner=owner, run_id=run_id, left_s=left_s):
            state, holder = "leased", Holder(owner, run_id, "", left_s)
    device = Device(
        entry,
        snapshot.facts,
        state,
        reason,
        holder.owner if holder else None,
        holder=holder,
        remedy=remedy,
        hottest=snapshot.hottest,
        queue=tuple(queue),
    )
    return expected(device)


def expected(device: Device) -> Device:
    """Mark a device that isn't as the inventory expects as unfit."""
    if not device.unmet:
        return device
    remedy = f"put that back, or change `expect` of {device.name} in the inventory"
    return device.marked("unfit", f"{'; '.join(device.unmet)}: {remedy}", remedy)


def probe_all(
    entries: Sequence[DeviceEntry], context: SiteContext, limit_s: float = PROBE_LIMIT_S
) -> list[Device]:
    """Probe devices in parallel. Blocks for at most the limit of one."""
    probes = [Probe(entry, context, limit_s) for entry in entries]
    for probe in probes:
        probe.start()
    return [probe.result() for probe in probes]


def look(
    entries: Sequence[DeviceEntry],
    discover: Callable[[], Sequence[DeviceEntry | Device]] | None,
    context: SiteContext,
    limit_s: float,
    site: str = "",
) -> list[Device]:
    """Probe the named devices and those that are discovered meanwhile.

    Args:
        entries: The named devices.
        discover: Finds attached devices; None looks for none.
        context: Folders and factories of this host.
        limit_s: Limit of each device, and of the discovery.
        site: This host, as its devices name it; empty without a cluster.

    Returns:
        Also a row for the phones of an adb server that can't be asked.

    Raises:
        ConfigError: Devices can't be discovered as this host is set up.
    """
    limit = Deadline(limit_s)
    glance = limit_s < PROBE_LIMIT_S
    named = [Probe(entry, context, limit_s, glance=glance) for entry in entries]
    for probe in named:
        probe.start()
    found: Sequence[DeviceEntry | Device] = []
    lost: list[Device] = []
    try:
        found = _discovered(discover, limit_s) if discover is not None else []
    except ConnectError as error:
        # Nobody was asked about phones: that must not read as having none.
        lost.append(unlooked(error, site))
    probes = [
        Probe(one, context, max(0.5, limit.remaining_s), glance=glance)
        for one in found
        if isinstance(one, DeviceEntry)
    ]
    for probe in probes:
        probe.start()
    refused = [one for one in found if isinstance(one, Device)]
    seen = [*(probe.result() for probe in probes), *refused]
    merged = merge([probe.result() for probe in named], seen)
    listed = {entry.name for entry in entries}
    taken = {device.name for device in merged}
    return [*(d if d.name in listed else _by_identity(d, taken) for d in merged), *lost]


def _by_identity(device: Device, taken: AbstractSet[str]) -> Device:
    """A discovered wireless phone under its own serial number: its address changes by itself."""
    name = "" if device.facts is None else "".join(device.facts.identity.split())
    if not name or name in taken or not _is_network(device.entry):
        return device
    return replace(device, entry=replace(device.entry, name=name))


def _discovered(
    discover: Callable[[], Sequence[DeviceEntry | Device]], limit_s: float
) -> Sequence[DeviceEntry | Device]:
    """Discover in a thread of its own: an adb server that hangs must not hold all others up."""
    found: list[DeviceEntry | Device] = []
    failed: list[FarmError] = []

    def ask() -> None:
        try:
            found.extend(discover())
        except FarmError as error:
            failed.append(error)

    limit_s = max(limit_s, DISCOVERY_S)
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise ConnectError(
            f"the adb server didn't answer within {limit_s:g} s",
            remedy="restart it (adb kill-server), or look what else listens on its port",
        )
    if failed:
        raise failed[0]
    return found


def merge(named: Sequence[Device], found: Sequence[Device]) -> list[Device]:
    """Make one device of one machine, however many connections lead to it.

    Every named device stays; of two with one identity, both are unfit and name each other. A
    discovered connection to a known machine is dropped; USB comes before Wi-Fi. Machines with
    one identity that booted apart are two, whose identity was copied.
    """
    out: list[Device] = list(named)
    for device in sorted(found, key=lambda d: (_is_network(d.entry), d.name)):
        if not any(_same_boot(device.facts, other.facts) for other in out):
            out.append(device)
    return [_unique(device, out) for device in out]


def _unique(device: Device, all_devices: Sequence[Device]) -> Device:
    """Mark a device whose identity another one has too."""
    facts = device.facts
    if facts is None:
        return device
    twins = [
        other
        for other in all_devices
        if other is not device and other.facts and other.facts.identity == facts.identity
    ]
    if not twins:
        return device
    names = ", ".join(_spelled(other) for other in twins)
    if any(_same_boot(facts, other.facts) for other in twins):
        remedy = "remove one of them from the inventory"
        text = f"the same device as {names} (identity {facts.identity})"
    else:
        remedy = "give each its own serial or machine-id (systemd-machine-id-setup), or unplug one"
        text = f"has the same identity {facts.identity} as {names}, yet they are two devices"
    return device.marked("unfit", f"{text}: {remedy}", remedy)


def _spelled(device: Device) -> str:
    serial = device.entry.serial
    return device.name if serial in (None, device.name) else f"{device.name} ({serial})"


def _same_boot(one: DeviceFacts | None, other: DeviceFacts | None) -> bool:
    """Whether two connections lead to one machine; a connection without a boot id is taken to."""
    if one is None or other is None or one.identity != other.identity:
        return False
    return one.boot_id == other.boot_id or None in (one.boot_id, other.boot_id)


def _is_network(entry: DeviceEntry) -> bool:
    serial = (entry.serial or "").removeprefix("usb:")
    return ":" in serial or "._tcp" in serial


def _state(error: FarmError) -> str:
    state = str(error.context.get("state", ""))
    if isinstance(error, ConnectError) and state:
        return state
    return "offline" if isinstance(error, TransportError) else "unfit"
