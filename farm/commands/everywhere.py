"""Devices of this host and of the sites of a cluster: looking at them, and work on one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from farm.cluster import start as cluster_start
from farm.cluster.start import Runtime
from farm.config.load import load_inventory
from farm.core.device import Device, Inventory
from farm.core.errors import UnknownName
from farm.paths import quarantine_file
from farm.planning.devices import find_devices, find_entry, survey
from farm.state.health_book import HealthBook

T = TypeVar("T")

#: Longest time for a short piece of work on a device, by way of its site; seconds.
WORK_S = 120.0


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
    if cluster == "none":
        return survey(inventory, select, home, limit_s)

    async def probe(runtime: Runtime) -> tuple[Device, ...]:
        return await find_devices(runtime.sites, inventory, select, limit_s=limit_s)

    return HealthBook(quarantine_file(home)).apply(_joined(cluster, home, probe))


def work_on(
    cluster: str,
    name: str,
    inventory: Path | None,
    home: Path,
    work: Callable[..., T],
    *arguments: object,
) -> T:
    """Call `work(FARM_HOME, entry, *arguments)` on the host that a device hangs on.

    Args:
        cluster: Its address, or `none` for a device of this host.
        name: The device.
        inventory: File of the devices.
        home: FARM_HOME of this host.
        work: A function of a module; it may travel.
        arguments: What it is called with.

    Raises:
        UnknownName: There is no such device.
        FarmError: What `work` raises.
    """
    if cluster == "none":
        return work(home, find_entry(load_inventory(inventory), name), *arguments)

    async def find(runtime: Runtime) -> T:
        found = await find_devices(runtime.sites, load_inventory(inventory))
        entry = next((device.entry for device in found if device.name == name), None)
        if entry is None:
            known = tuple(device.name for device in found)
            raise UnknownName(
                f"no device {name!r}; the cluster has {', '.join(known) or 'none'}", known=known
            )
        if not entry.site:
            return work(home, entry, *arguments)
        from farm.cluster.ray_errand import run_at

        return run_at(entry.site, work, entry, *arguments, limit_s=WORK_S)

    return _joined(cluster, home, find)


def _joined(cluster: str, home: Path, ask: Callable[[Runtime], Awaitable[T]]) -> T:
    cluster_start.launch(cluster)

    async def work() -> T:
        async with cluster_start.started(cluster, home) as runtime:
            return await ask(runtime)

    return asyncio.run(work())
