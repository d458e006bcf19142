"""How a cluster is: its nodes, its sites, and the devices that their agents see."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from farm.cluster import start as cluster_start
from farm.cluster.bound import way_to
from farm.commands.cluster import this_farm
from farm.config.load import load_inventory
from farm.core.device import Device, Inventory
from farm.core.errors import FarmError, SiteLost
from farm.planning.devices import entries_by_site, one_of_each
from farm.protocols import Site

if TYPE_CHECKING:  # Ray reads the environment when it is imported, which is prepared first
    from farm.cluster.ray_head import Node

#: Longest time for all that a site says of itself, seconds.
ANSWER_S = 75.0


@dataclass(frozen=True, slots=True)
class SiteState:
    """A site as `farm cluster status` and `farm site list` show it."""

    name: str
    #: IP address and name of its host.
    address: str
    host: str
    #: `up`; `left` (it was stopped), `gone` (it was not), `silent` (its agent doesn't answer),
    #: `other farm`; `not asked` from here.
    state: str
    #: Why it is not up; empty when it is.
    reason: str = ""
    #: Of farm's sources there; None when it didn't say.
    farm_tree_sha256: str | None = None
    python: str | None = None
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterState:
    """A cluster, as one of its hosts sees it."""

    cluster: str
    #: What the head said of its farm; empty for a cluster that farm didn't start.
    farm: Mapping[str, str]
    nodes: tuple[Node, ...]
    sites: tuple[SiteState, ...]

    @property
    def well(self) -> bool:
        """Whether every site that nobody stopped answers and runs the same farm."""
        return all(site.state in ("up", "left") for site in self.sites)


def state_of(cluster: str, inventory: Path | None, *, ask: bool) -> ClusterState:
    """Look at a cluster, after `start.enter`.

    Args:
        cluster: Address of its head.
        inventory: Devices to ask the sites for, beside those that are attached.
        ask: Ask the agent of each site; else only the head is asked.

    Raises:
        PlanError: It doesn't answer.
    """
    from farm.cluster.ray_head import Head

    head = Head(cluster)
    nodes, farm = tuple(head.nodes()), head.farm() or {}
    places = _places(nodes)
    here = way_to(cluster)
    if ask and any(node.alive and node.address == here for node in nodes):
        cluster_start.launch(cluster)
        sites = asyncio.run(_asked(places, load_inventory(inventory)))
    else:
        why = "this host is no node of the cluster" if ask else ""
        sites = [
            SiteState(name, n.address, n.host, "up" if not ask else "not asked", why)
            if n.alive
            else _gone(name, n)
            for name, n in places.items()
        ]
    return ClusterState(cluster, farm, nodes, tuple(sites))


def lost_sites(cluster: str) -> dict[str, FarmError]:
    """Sites whose node was lost, and how it comes back; not those that somebody stopped.

    Raises:
        PlanError: The head doesn't answer.
    """
    sites = state_of(cluster, None, ask=False).sites
    return {site.name: SiteLost(site.reason) for site in sites if site.state == "gone"}


def _places(nodes: tuple[Node, ...]) -> dict[str, Node]:
    """The node of each site: the living one, else the last that had its name."""
    places: dict[str, Node] = {}
    for node in sorted(nodes, key=lambda node: (node.alive, node.since_ms)):
        places |= dict.fromkeys(node.sites, node)
    return dict(sorted(places.items()))


def _gone(name: str, node: Node) -> SiteState:
    if node.left:
        return SiteState(name, node.address, node.host, "left", "it was stopped there")
    reason = "its node was lost: `farm site join` on its host brings it back"
    return SiteState(name, node.address, node.host, "gone", reason)


async def _asked(places: Mapping[str, Node], inventory: Inventory) -> list[SiteState]:
    agents = cluster_start.joined_sites()
    alive = {name: node for name, node in places.items() if node.alive and name in agents}
    asked = await asyncio.gather(
        *(_ask(agents[name], name, node, inventory) for name, node in alive.items())
    )
    seen = {site.name: site for site in asked}
    devices = one_of_each({name: site.devices for name, site in seen.items()}, inventory)
    shown = [device for device in devices if device.entry.site]
    return [
        _with_devices(seen[name], shown) if name in seen else _gone(name, node)
        for name, node in places.items()
    ]


def _with_devices(site: SiteState, devices: list[Device]) -> SiteState:
    own = tuple(device for device in devices if device.entry.site == site.name)
    return replace(site, devices=own)


async def _ask(site: Site, name: str, node: Node, inventory: Inventory) -> SiteState:
    ours = this_farm()
    try:
        async with asyncio.timeout(ANSWER_S):
            theirs = await site.handshake()
            tree, python = theirs.farm_tree_sha256, theirs.python
            if (tree, python) != (ours["farm_tree_sha256"], ours["python"]):
                reason = "install the same version of farm and Python on every host"
                return SiteState(name, node.address, node.host, "other farm", reason, tree, python)
            entries = entries_by_site(inventory, [name])[name]
            devices = await site.inventory(entries, adb_auto=inventory.adb_auto)
    except TimeoutError:
        reason = f"its agent did not answer within {ANSWER_S:.0f} s"
        return SiteState(name, node.address, node.host, "silent", reason)
    except FarmError as error:
        return SiteState(name, node.address, node.host, "silent", error.message)
    return SiteState(name, node.address, node.host, "up", "", tree, python, tuple(devices))
