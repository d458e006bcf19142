"""adb devices that are attached to this host and not named in the inventory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from farm.core.device import DeviceEntry
from farm.core.errors import ConnectError
from farm.transports.adb_devices import attached, usable_rows

log = logging.getLogger(__name__)

Discover = Callable[[Sequence[DeviceEntry], str], list[DeviceEntry]]

#: Class, subclass and protocol of a USB interface that speaks adb.
_ADB_INTERFACE = ("ff", "42", "01")


def discover_adb(named: Sequence[DeviceEntry], site: str) -> list[DeviceEntry]:
    """Entries for attached adb devices, usable or not; none where this host has no adb.

    Raises:
        ConfigError: An environment variable of adb doesn't say where its server is.
    """
    try:
        # A server keeps running after farm, so it is started only where a phone is plugged in.
        rows = attached(start=usb_phone_attached())
    except ConnectError as error:
        log.info("no attached adb devices: %s", error)
        return []
    taken = {entry.serial for entry in named if entry.transport == "adb"}
    return [
        # A name has no blanks; the serial number of a second mDNS name has one.
        DeviceEntry(name="".join(row.serial.split()), transport="adb", site=site, serial=row.serial)
        for row in usable_rows(rows)
        if not {row.serial, row.path} & taken
    ]


def usb_phone_attached(usb: Path = Path("/sys/bus/usb/devices")) -> bool:
    """Tell whether a USB device with an adb interface is plugged in."""
    leaves = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    for interface in usb.glob("*:*"):
        try:
            found = tuple((interface / leaf).read_text().strip() for leaf in leaves)
        except OSError:
            continue  # unplugged while we looked
        if found == _ADB_INTERFACE:
            return True
    return False
