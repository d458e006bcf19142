"""`farm cluster status`: nodes, sites with their versions, devices and who has them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from farm.commands.cluster_state import ClusterState
from farm.core.device import Device
from farm.core.durations import duration_text
from farm.core.lease import HOLD_RUN
from farm.core.printable import one_line
from farm.ui.devices import devices
from farm.ui.frame import new_table

_STYLES = {"up": "green", "left": "dim"}


def cluster(state: ClusterState) -> RenderableType:
    """A cluster: its head line, its nodes, its sites, and the devices of those that answer."""
    version = state.farm.get("version", "unknown")
    tree = state.farm.get("farm_tree_sha256", "unknown")[:12]
    head = f"cluster {state.cluster}: farm {version} ({tree}), Python {state.farm.get('python')}"
    nodes = new_table("node", "address", "state", "CPUs for tasks", "site")
    for node in state.nodes:
        nodes.add_row(
            one_line(node.host) + (" (head)" if node.head else ""),
            node.address,
            "up" if node.alive else "left" if node.left else "gone",
            str(node.cpus),
            one_line(", ".join(node.sites)),
        )
    sites = new_table("site", "state", "host", "farm", "devices", "why")
    for site in state.sites:
        sites.add_row(
            one_line(site.name),
            Text(site.state, _STYLES.get(site.state, "red")),
            one_line(site.host),
            (site.farm_tree_sha256 or "unknown")[:12],
            str(len(site.devices)),
            one_line(site.reason),
        )
    found = [device for site in state.sites for device in site.devices]
    shown = [devices(found)] if found else []
    if any(device.queue for device in found):
        shown.append(_queues(found))
    return Group(Text(head, "bold"), nodes, sites, *shown)


def _queues(found: Sequence[Device]) -> RenderableType:
    """Who waits for which device, in the order in which it is given to them."""
    table = new_table("device", "place", "who waits", "priority", "job", "since")
    for device in found:
        for place, one in enumerate(device.queue, 1):
            run = "a person" if one.run_id == HOLD_RUN else f"run {one.run_id}"
            table.add_row(
                one_line(device.name),
                str(place),
                one_line(f"{run} ({one.owner})" if one.owner else run),
                "" if one.priority is None else str(one.priority),
                one_line(one.job_id or ""),
                duration_text(one.waits_s),
            )
    return table
