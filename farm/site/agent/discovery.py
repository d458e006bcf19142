"""adb devices that are attached to this host and not named in the inventory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConnectError
from farm.transports.adb_devices import (
    CONNECTABLE,
    AttachedDevice,
    attached,
    listens,
    named_by,
    server_address,
    spelled,
    unusable,
    usable_rows,
)
from farm.transports.adb_names import by_serialno

log = logging.getLogger(__name__)

#: Entries to probe, and devices that need no probe: adb itself refuses them.
Discover = Callable[[Sequence[DeviceEntry], str], Sequence[DeviceEntry | Device]]

#: Class, subclass and protocol of a USB interface that speaks adb.
_ADB_INTERFACE = ("ff", "42", "01")


def discover_adb(named: Sequence[DeviceEntry], site: str) -> list[DeviceEntry | Device]:
    """Attached adb devices, usable or not; none where this host has no adb.

    Raises:
        ConfigError: An environment variable of adb doesn't say where its server is.
        ConnectError: Nobody could be asked about phones that may be there: the server that the
            environment names is down, what listens in its place is none, or a phone is plugged
            in and no server can be started.
    """
    plugged = usb_phone_attached()
    try:
        # A server keeps running after farm, so it is started only where a phone is plugged in.
        rows = attached(start=plugged)
    except ConnectError as error:
        _absent(error, plugged=plugged)
        return []
    taken = {entry.serial for entry in named if entry.transport == "adb"}
    return [_listed(row, site) for row in usable_rows(rows) if not {row.serial, row.path} & taken]


def _listed(row: AttachedDevice, site: str) -> DeviceEntry | Device:
    # A name has no blanks; the serial number of a second mDNS name has one.
    entry = DeviceEntry("".join(row.serial.split()), "adb", site=site, serial=row.serial)
    if row.state in ("device", *CONNECTABLE):
        return entry
    return Device(entry, None, row.state, unusable(row.serial, row.state), remedy=row.remedy)


def wireless_phone(serialno: str) -> DeviceEntry | None:
    """Entry of the attached wireless phone with this serial number; None when there is none.

    Raises:
        ConfigError: An environment variable of adb doesn't say where its server is.
    """
    try:
        serial = by_serialno(server_address(None), serialno)
    except ConnectError as error:
        log.info("no attached adb devices: %s", error)
        return None
    if serial is None:
        return None
    return DeviceEntry(name=serialno, transport="adb", serial=serial)


def _absent(error: ConnectError, *, plugged: bool) -> None:
    """Say that there is no adb server here; raise where that doesn't mean that no phone is."""
    address, variable = server_address(None), named_by()
    where = spelled(address)
    if variable and not plugged and not listens(address):
        raise ConnectError(
            f"no adb server answers at {where}, which {variable} names",
            remedy=f"start it there (adb -a server), mend the tunnel, or unset {variable}",
        ) from error
    if plugged or listens(address):
        raise error
    level = logging.WARNING if os.environ.get("ANDROID_ADB_SERVER_PORT") else logging.INFO
    log.log(level, "no adb server listens at %s and no phone is plugged in", where)


def unlooked(error: ConnectError, site: str) -> Device:
    """A row in place of the phones that nobody could be asked about: they aren't known to be none.

    Args:
        error: Why.
        site: Host whose adb server it is; empty for this one.
    """
    entry = DeviceEntry(
        name="@".join(filter(None, ("adb-server", site))), transport="adb", site=site
    )
    remedy = str(error.context.get("remedy", "")) or "look at `farm doctor`, or set `adb: none`"
    reason = f"phones were not looked for: {error.message}: {remedy}"
    return Device(entry, None, "offline", reason, remedy=remedy)


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
