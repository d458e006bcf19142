"""Devices by the inventory: all of them probed, or one found by its name. Knows no cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import runners
from farm import transports
from farm.core.device import Device, DeviceEntry, Inventory
from farm.core.errors import ConfigError, UnknownName
from farm.core.plan import selects
from farm.core.selector import parse_selector
from farm.paths import quarantine_file, store_root
from farm.protocols import PROBE_LIMIT_S, Site
from farm.site.agent.discovery import discover_adb
from farm.site.agent.inventory import look
from farm.site.context import SiteContext
from farm.state.health_book import HealthBook
from farm.store.objects import ContentStore


def with_local(inventory: Inventory) -> tuple[DeviceEntry, ...]:
    """Return the entries, with this machine as `local` where the inventory wants that."""
    if inventory.local and not any(e.transport == "local" for e in inventory.entries):
        return (*inventory.entries, DeviceEntry(name="local", transport="local"))
    return inventory.entries


async def find_devices(
    sites: Mapping[str, Site],
    inventory: Inventory,
    select: str = "",
    *,
    limit_s: float = PROBE_LIMIT_S,
    recover: bool = False,
) -> tuple[Device, ...]:
    """Probe every device of the inventory that `select` doesn't rule out.

    Args:
        sites: By name; the empty name is this host.
        inventory: The devices.
        select: Selector; empty for all.
        limit_s: Longest time that a silent device may take.
        recover: Try the recovery steps of devices that don't answer.

    Raises:
        ConfigError: An entry names a site that the cluster doesn't have.
    """
    entries: dict[str, list[DeviceEntry]] = {site: [] for site in sites}
    for entry in with_local(inventory):
        if entry.site not in entries:
            known = ", ".join(name or "(this host)" for name in entries)
            raise ConfigError(
                f"{entry.origin}.site: no site {entry.site!r} in this cluster; there are: {known}"
            )
        entries[entry.site].append(entry)
    found = await asyncio.gather(
        *(
            site.inventory(
                entries[name], adb_auto=inventory.adb_auto, limit_s=limit_s, recover=recover
            )
            for name, site in sites.items()
        )
    )
    selector = parse_selector(select)
    return tuple(device for devices in found for device in devices if selects(selector, device))


def find_entry(inventory: Inventory, name: str) -> DeviceEntry:
    """Return the device of that name: of the inventory, or attached now.

    Raises:
        UnknownName: There is none.
        ConfigError: It hangs on another host.
    """
    entries = list(with_local(inventory))
    if inventory.adb_auto and all(entry.name != name for entry in entries):
        entries += discover_adb(entries, "")
    found = next((entry for entry in entries if entry.name == name), None)
    if found is None:
        known = tuple(entry.name for entry in entries)
        raise UnknownName(
            f"no device {name!r}; the inventory has {', '.join(known) or 'none'}", known=known
        )
    if found.site:
        raise ConfigError(
            f"{found.origin}.site: {name} hangs on site {found.site}: run this command there"
        )
    return found


def survey(inventory: Inventory, select: str, home: Path, limit_s: float) -> tuple[Device, ...]:
    """Probe the devices of this host in this process; those of other hosts are only named.

    Args:
        inventory: The devices.
        select: Selector; empty for all.
        home: FARM_HOME.
        limit_s: Longest time that a silent device may take.
    """
    entries = [entry for entry in with_local(inventory) if not entry.site]
    discover = partial(discover_adb, entries, "") if inventory.adb_auto else None
    context = SiteContext(home, ContentStore(store_root(home)), transports.open, runners.find)
    selector = parse_selector(select)
    found = [d for d in look(entries, discover, context, limit_s) if selects(selector, d)]
    book = HealthBook(quarantine_file(home))
    return (*book.apply(found), *_elsewhere(inventory, select))


def _elsewhere(inventory: Inventory, select: str) -> list[Device]:
    selector = parse_selector(select)
    found = []
    for entry in inventory.entries:
        remedy = f"run `farm devices` on {entry.site}"
        reason = f"it hangs on site {entry.site}: {remedy}"
        device = Device(entry, None, "elsewhere", reason, remedy=remedy)
        if entry.site and selects(selector, device):
            found.append(device)
    return found
