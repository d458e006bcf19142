"""Devices by the inventory: all of them probed, or one found by its name. Knows no cluster."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import runners
from farm import transports
from farm.core.device import Device, DeviceEntry, Inventory
from farm.core.errors import ConfigError, UnknownName
from farm.core.names import meant
from farm.core.plan import selects
from farm.core.selector import parse_selector
from farm.paths import quarantine_file, store_root
from farm.protocols import PROBE_LIMIT_S, Site
from farm.site.agent.discovery import discover_adb, wireless_phone
from farm.site.agent.inventory import look, merge
from farm.site.context import SiteContext
from farm.state.health_book import HealthBook
from farm.store.objects import ContentStore


def with_local(inventory: Inventory) -> tuple[DeviceEntry, ...]:
    """Return the entries, with this machine as `local` where the inventory wants that."""
    if inventory.local and not any(e.transport == "local" for e in inventory.entries):
        return (*inventory.entries, DeviceEntry(name="local", transport="local"))
    return inventory.entries


def entries_by_site(inventory: Inventory, sites: Iterable[str]) -> dict[str, list[DeviceEntry]]:
    """Return the entries of each of these sites; those of others are left out."""
    entries: dict[str, list[DeviceEntry]] = {site: [] for site in sites}
    for entry in with_local(inventory):
        if entry.site in entries:
            entries[entry.site].append(entry)
    return entries


async def find_devices(
    sites: Mapping[str, Site],
    inventory: Inventory,
    select: str = "",
    *,
    limit_s: float = PROBE_LIMIT_S,
    recover: bool = False,
    elsewhere: bool = False,
) -> tuple[Device, ...]:
    """Probe every device of the inventory that `select` doesn't rule out.

    A device whose site is not in the cluster is absent, and says so.

    Args:
        sites: By name; the empty name is this host.
        inventory: The devices.
        select: Selector; empty for all.
        limit_s: Longest time that a silent device may take.
        recover: Try the recovery steps of devices that don't answer.
        elsewhere: Without a cluster, name the devices of other hosts instead of refusing them.

    Raises:
        ConfigError: Without a cluster, an entry names a site.
    """
    entries, selector = entries_by_site(inventory, sites), parse_selector(select)
    away = [_away(entry, sites) for entry in inventory.entries if entry.site not in entries]
    away = [device for device in away if selects(selector, device)]
    if away and set(sites) == {""} and not elsewhere:
        entry = away[0].entry
        raise ConfigError(
            f"{entry.origin}.site: {entry.name} hangs on site {entry.site}: give --cluster"
            f" ADDRESS, or leave it out with --select 'name!={entry.name}'"
        )
    found = await asyncio.gather(
        *(
            site.inventory(
                entries[name], adb_auto=inventory.adb_auto, limit_s=limit_s, recover=recover
            )
            for name, site in sites.items()
        )
    )
    devices = one_of_each(dict(zip(sites, found, strict=True)), inventory)
    return (*(device for device in devices if selects(selector, device)), *away)


def one_of_each(found: Mapping[str, Sequence[Device]], inventory: Inventory) -> list[Device]:
    """Make one device of one phone that several agents see, as on a driver's host that is a node.

    An entry of the inventory comes before a discovery, and a site before the driver's own agent.
    Two devices that were discovered under one name can't be told apart by it, and are unfit.
    """
    if len(found) < 2:
        return [device for devices in found.values() for device in devices]
    listed = set(with_local(inventory))
    order = sorted(found, key=lambda site: (site == "", site))
    every = [device for site in order for device in found[site]]
    merged = merge(
        [device for device in every if device.entry in listed],
        [device for device in every if device.entry not in listed],
    )
    names = Counter(device.name for device in merged)
    return [
        device if names[device.name] == 1 or device.entry in listed else _renamed(device)
        for device in merged
    ]


def _renamed(device: Device) -> Device:
    """Mark a discovered device whose name another one has, under a name of its own."""
    remedy = f"give it an entry with another name and `site: {device.entry.site}` in the inventory"
    marked = device.marked("unfit", f"another device is called {device.name} too: {remedy}", remedy)
    name = f"{device.name}@{device.entry.site or 'this-host'}"
    return replace(marked, entry=replace(device.entry, name=name))


def _away(entry: DeviceEntry, sites: Iterable[str]) -> Device:
    """A device that no agent of ours reaches."""
    names = ", ".join(name for name in sites if name)
    if not names:
        remedy = f"give --cluster ADDRESS, or run this on {entry.site}"
        reason = f"it hangs on site {entry.site}: {remedy}"
        return Device(entry, None, "elsewhere", reason, remedy=remedy)
    remedy = f"`farm site join` on {entry.site} brings it back; `farm cluster status` shows more"
    reason = f"its site {entry.site} is not in this cluster, which has {names}: {remedy}"
    return Device(entry, None, "absent", reason, remedy=remedy)


def find_entry(inventory: Inventory, name: str) -> DeviceEntry:
    """Return the device of that name: of the inventory, or attached now.

    Raises:
        UnknownName: There is none.
        ConfigError: It hangs on another host.
    """
    entries = list(with_local(inventory))
    if inventory.adb_auto and all(entry.name != name for entry in entries):
        attached = discover_adb(entries, "")
        entries += (one.entry if isinstance(one, Device) else one for one in attached)
    found = next((entry for entry in entries if entry.name == name), None)
    if found is None and inventory.adb_auto:
        found = wireless_phone(name)
    if found is None:
        known = tuple(entry.name for entry in entries)
        raise UnknownName(
            f"no device {name!r}; the inventory has {', '.join(known) or 'none'}"
            f"{meant(name, known)}",
            known=known,
        )
    if found.site:
        raise ConfigError(
            f"{found.origin}.site: {name} hangs on site {found.site}: give --cluster ADDRESS, or"
            " run this command there"
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
    away = [_away(entry, ()) for entry in inventory.entries if entry.site]
    return (*book.apply(found), *(device for device in away if selects(selector, device)))
