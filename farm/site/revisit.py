"""Lost devices: said to be offline at once, looked for until they answer again."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable

from farm.core.device import Device, DeviceEntry
from farm.core.events import DeviceChanged
from farm.site.context import SiteContext
from farm.site.inventory import probe_all

log = logging.getLogger(__name__)

#: Pauses between two looks at a lost device, seconds; the last one repeats.
PAUSES_S = (2.0, 5.0, 10.0, 30.0)


class Revisitor:
    """One thread for each lost device, until it is back or the agent ends.

    Args:
        context: Folders and factories of this host.
        emit: Takes events.
    """

    def __init__(self, context: SiteContext, emit: Callable[[DeviceChanged], None]) -> None:
        self._context = context
        self._emit = emit
        self._ended = threading.Event()
        # Protects _looking: sessions report lost devices from their own threads.
        self._lock = threading.Lock()
        self._looking: set[str] = set()

    def lost(self, device: Device, reason: str) -> None:
        """Report a device as offline and begin to look for it."""
        with self._lock:
            if device.name in self._looking or self._ended.is_set():
                return
            self._looking.add(device.name)
        self._emit(DeviceChanged(dataclasses.replace(device, state="offline", reason=reason)))
        threading.Thread(
            target=self._look, args=(device.entry,), name=f"farm-look-{device.name}", daemon=True
        ).start()

    def close(self) -> None:
        """End all looking; a probe under way ends by its own limit."""
        self._ended.set()

    def _look(self, entry: DeviceEntry) -> None:
        turn = 0
        while not self._ended.wait(PAUSES_S[min(turn, len(PAUSES_S) - 1)]):
            turn += 1
            (device,) = probe_all([entry], self._context)
            if device.facts is not None:
                with self._lock:
                    self._looking.discard(entry.name)
                log.info("%s is back", entry.name)
                self._emit(DeviceChanged(device))
                return
