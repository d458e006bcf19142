"""adb devices that hang on this host and are not named in the inventory."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence

from farm.core.device import DeviceEntry

log = logging.getLogger(__name__)

Discover = Callable[[Sequence[DeviceEntry], str], list[DeviceEntry]]


def discover_adb(named: Sequence[DeviceEntry], site: str) -> list[DeviceEntry]:
    """Entries for attached adb devices; none where this host has no adb server."""
    adb = importlib.import_module("farm.transports.adb")  # optional on hosts without phones

    taken = {entry.serial for entry in named if entry.transport == "adb"}
    return [
        DeviceEntry(name=serial, transport="adb", site=site, serial=serial)
        for serial in adb.attached()
        if serial not in taken
    ]
