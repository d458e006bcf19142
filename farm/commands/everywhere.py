"""Devices of this host and of the sites of a cluster: looking at them, and work on one of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from farm.commands.cluster_state import lost_sites
from farm.config.load import load_inventory
from farm.core.device import Device, Inventory
from farm.core.errors import FarmError, UnknownName
from farm.core.names import meant
from farm.planning.devices import find_entry
from farm.planning.reach import WORK_S, Reach, reaching

T = TypeVar("T")


def look(
    cluster: str, inventory: Inventory, select: str, home: Path, limit_s: float
) -> tuple[Device, ...]:
    """Probe the devices of this host and, with a cluster, of all its sites.

    Args:
        cluster: Its address, or `none`.
        inventory: The devices.
        select: Selector; empty for all.
        home: FARM_HOME.
        limit_s: Longest time that a silent device may take.
    """
    with reaching(cluster, home) as reach:
        return reach.look(inventory, select, limit_s)


def work_on(
    cluster: str,
    name: str,
    inventory: Path | None,
    home: Path,
    work: Callable[..., T],
    *arguments: object,
    limit_s: float = WORK_S,
) -> T:
    """Call `work(FARM_HOME, entry, *arguments)` on the host that a device hangs on.

    Args:
        cluster: Its address, or `none` for a device of this host.
        name: The device.
        inventory: File of the devices.
        home: FARM_HOME of this host.
        work: A function of a module; it may travel.
        arguments: What it is called with.
        limit_s: Longest time for it at another host.

    Raises:
        UnknownName: There is no such device.
        FarmError: What `work` raises.
    """
    if cluster == "none":
        return work(home, find_entry(load_inventory(inventory), name), *arguments)
    with reaching(cluster, home) as reach:
        entry = device_of(reach, name, inventory).entry
        return reach.at(entry.site, work, entry, *arguments, limit_s=limit_s)


def device_of(reach: Reach, name: str, inventory: Path | None) -> Device:
    """Return the device of that name, probed now.

    Raises:
        UnknownName: There is no such device.
    """
    found = reach.look(load_inventory(inventory), "")
    device = next((device for device in found if device.name == name), None)
    if device is None:
        known = tuple(device.name for device in found)
        raise UnknownName(
            f"no device {name!r}; the cluster has {', '.join(known) or 'none'}{meant(name, known)}",
            known=known,
        )
    return device


def at_each(
    cluster: str, home: Path, work: Callable[..., T], *arguments: object
) -> dict[str, T | FarmError]:
    """Call `work(FARM_HOME, *arguments)` on this host and on that of every site of a cluster.

    Args:
        cluster: Its address, or `none` for this host alone.
        home: FARM_HOME of this host.
        work: A function of a module; it may travel.
        arguments: What it is called with.

    Returns:
        What it gave, or why it gave nothing, by site, those that are lost included; the empty
        name is this host.

    Raises:
        FarmError: What `work` raises on this host.
    """
    found: dict[str, T | FarmError] = {"": work(home, *arguments)}
    if cluster == "none":
        return found

    with reaching(cluster, home) as reach:

        def at(site: str) -> T | FarmError:
            try:
                return reach.at(site, work, *arguments)
            except FarmError as error:
                return error

        with ThreadPoolExecutor(max(1, len(reach.sites))) as threads:
            found.update(zip(reach.sites, threads.map(at, reach.sites), strict=True))
    return lost_sites(cluster) | found
