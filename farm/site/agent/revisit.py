"""Lost devices: recovered where the inventory says how, looked for until they answer again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from farm.core.device import Device, DeviceEntry
from farm.core.events import DeviceChanged, DeviceRecovery
from farm.site.agent.inventory import probe_all
from farm.site.agent.recover import recover
from farm.site.context import SiteContext

log = logging.getLogger(__name__)

#: Pauses between two looks at a lost device, seconds; the last one repeats.
PAUSES_S = (2.0, 5.0, 10.0, 30.0)


class Revisitor:
    """One thread for each lost device, until it is back or the agent ends.

    Args:
        context: Folders and factories of this host.
        emit: Takes events.
    """

    def __init__(
        self, context: SiteContext, emit: Callable[[DeviceChanged | DeviceRecovery], None]
    ) -> None:
        self._context = context
        self._emit = emit
        self._ended = threading.Event()
        # Protects _looking: sessions report lost devices from their own threads.
        self._lock = threading.Lock()
        self._looking: set[str] = set()

    def lost(self, device: Device, reason: str) -> None:
        """Report a device as being recovered, and begin with it."""
        with self._lock:
            if device.name in self._looking or self._ended.is_set():
                return
            self._looking.add(device.name)
        self._emit(DeviceChanged(device.marked("recovering", reason)))
        threading.Thread(
            target=self._look, args=(device, reason), name=f"farm-look-{device.name}", daemon=True
        ).start()

    def recovered(self, devices: Sequence[Device]) -> list[Device]:
        """Try the recovery steps of devices that weren't found, in parallel; blocks meanwhile."""
        futures: dict[str, Future[Device | None]] = {}
        for device in devices:
            if device.facts is None and device.entry.recover:
                future = futures[device.name] = Future()
                threading.Thread(
                    target=self._deliver, args=(device.entry, future), daemon=True
                ).start()
        found = {name: future.result() for name, future in futures.items()}
        return [found.get(device.name) or device for device in devices]

    def close(self) -> None:
        """End all looking; a probe under way ends by its own limit."""
        self._ended.set()

    def _deliver(self, entry: DeviceEntry, future: Future[Device | None]) -> None:
        try:
            future.set_result(recover(entry, self._context, self._emit, self._ended))
        except BaseException as error:
            future.set_exception(error)

    def _look(self, lost: Device, reason: str) -> None:
        entry = lost.entry
        back = recover(entry, self._context, self._emit, self._ended)
        turn = 0
        if back is None and not self._ended.is_set():
            tried = f" ({', '.join(entry.recover)} didn't help)" if entry.recover else ""
            self._emit(DeviceChanged(lost.marked("offline", reason + tried)))
        while back is None:
            if self._ended.wait(PAUSES_S[min(turn, len(PAUSES_S) - 1)]):
                return
            turn += 1
            (device,) = probe_all([entry], self._context)
            back = device if device.facts is not None else None
        with self._lock:
            self._looking.discard(entry.name)
        log.info("%s is back", entry.name)
        self._emit(DeviceChanged(back))
