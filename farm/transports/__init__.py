"""Connections to devices: run, push, pull, stat, close.

Each transport stands in a file of its own, imported when a device of its kind is opened.
"""

from __future__ import annotations

from collections.abc import Callable

from farm.core.device import DeviceEntry
from farm.protocols import Transport
from farm.registry import Registry

#: Transport name to the function that makes one for an entry; nothing is connected yet.
TRANSPORTS: Registry[Callable[[DeviceEntry], Transport]] = Registry(
    "transport",
    {
        "local": "farm.transports.local:open_local",
        "adb": "farm.transports.adb:open_adb",
        "ssh": "farm.transports.ssh:open_ssh",
        "sim": "farm.transports.sim:open_sim",
    },
)


def open(entry: DeviceEntry) -> Transport:
    """Make the transport of a device; it connects at its first call.

    Raises:
        UnknownName: No transport has that name, or a package that it needs is missing.
        ConfigError: The entry lacks what the transport needs.
    """
    return TRANSPORTS.get(entry.transport)(entry)
