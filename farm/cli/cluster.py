"""Commands about a cluster: its head, its sites, and how it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as o
from farm.cli import show
from farm.cli.group import Commands

if TYPE_CHECKING:
    from farm.cluster.node import Started
    from farm.commands.cluster_state import ClusterState

app = typer.Typer(
    cls=Commands, no_args_is_help=True, help="A cluster of several hosts: its head and its state."
)
site_app = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Hosts with devices that belong to a cluster."
)

Foreground = Annotated[
    bool, typer.Option("--foreground", help="Stay, for systemd or Docker; Ctrl-C ends it.")
]
Here = Annotated[
    str | None,
    typer.Option("--cluster", help="Address of the head. Default: the cluster of this host."),
]


@app.command("up")
def up(
    address: Annotated[
        str | None, typer.Option(help="IPv4 address of this host to listen on, and no other one.")
    ] = None,
    interface: Annotated[
        str | None, typer.Option(help="Interface to listen on, instead of its address.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the head.")] = 6379,
    cpus: Annotated[
        int | None, typer.Option(min=0, help="CPUs for exports and references; default: all.")
    ] = None,
    foreground: Foreground = False,
    as_json: o.Json = False,
) -> int:
    """Start the head of a cluster here. Without an address only this host reaches it.

    Example: `farm cluster up --interface eth0`
    """
    from farm import codec
    from farm.cluster.bound import address_of
    from farm.commands import cluster
    from farm.host.limits import usable_cpus
    from farm.paths import farm_home

    home, own = farm_home(), address_of(address, interface)
    head = cluster.up(own, port, usable_cpus() if cpus is None else cpus, home)
    text = (
        f"The cluster {head.cluster} is up. Its token is in {head.token}: whoever has it runs code"
        " on every host.\n"
        f"On each host with devices: farm site join {head.cluster} --token FILE\n"
        f"Then here: farm run CONFIG --cluster {head.cluster}"
    )
    show.told(codec.to_data(head), text, as_json=as_json)
    return _attended(head, foreground=foreground)


@app.command("status")
def status(
    cluster: Here = None,
    token: o.Token = None,
    inventory: o.InventoryFile = None,
    as_json: o.Json = False,
) -> int:
    """Show nodes, sites and their versions, devices, who has them and why, and who waits for them.

    Exit code 3 when a site is gone, silent, or runs another farm.
    """
    state = _state(cluster, token, inventory, ask=True)
    if as_json:
        from farm import codec

        show.print_json(codec.to_data(state))
    else:
        from farm.ui import cluster as tables

        show.print_table(tables.cluster(state))
    return 0 if state.well else 3


@app.command("down")
def down(as_json: o.Json = False) -> int:
    """End the head that was started here; the sites end by themselves within a minute."""
    from farm import codec
    from farm.cluster.node import stop_node
    from farm.paths import farm_home

    head = stop_node("head", farm_home())
    text = "no head runs here that this FARM_HOME started"
    if head is not None:
        text = f"the cluster {head.cluster} is down; its sites end within a minute"
    show.told({"stopped": head and codec.to_data(head)}, text, as_json=as_json)
    return 0


@site_app.command("join")
def join(
    cluster: Annotated[str, typer.Argument(metavar="ADDRESS", help="As `farm cluster up` said.")],
    token: o.Token = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the site in inventories. Default: the host's.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address to listen on. Default: the one on the way to the head."),
    ] = None,
    cpus: Annotated[
        int, typer.Option(min=0, help="CPUs for exports too; 0 leaves measured hosts alone.")
    ] = 0,
    foreground: Foreground = False,
    as_json: o.Json = False,
) -> int:
    """Make this host, with the devices that hang on it, a site of a cluster.

    Example: `farm site join 10.0.0.5:6379 --token ~/cluster-token --name rack2`
    """
    from farm import codec
    from farm.cluster.bound import address_of
    from farm.commands import cluster as cluster_command
    from farm.paths import farm_home

    own = None if address is None else address_of(address, None)
    site = cluster_command.join(cluster, token, name, own, cpus, farm_home())
    text = (
        f"This host is site {site.name} of the cluster {site.cluster}; it listens on"
        f" {site.address} only. `farm site stop` ends that."
    )
    show.told(codec.to_data(site), text, as_json=as_json)
    return _attended(site, foreground=foreground)


@site_app.command("list")
def list_(cluster: Here = None, token: o.Token = None, as_json: o.Json = False) -> int:
    """Show the sites that the head knows. Exit code 3 when one is gone that nobody stopped."""
    state = _state(cluster, token, None, ask=False)
    if as_json:
        from farm import codec

        show.print_json([codec.to_data(site) for site in state.sites])
    else:
        from farm.ui import tables

        rows = [(s.name, s.state, s.host, s.address, s.reason) for s in state.sites]
        show.print_table(tables.plain(("site", "state", "host", "address", "why"), rows))
    return 0 if state.well else 3


@site_app.command("stop")
def stop(as_json: o.Json = False) -> int:
    """End the site that this host is, and the jobs that run on its devices."""
    from farm import codec
    from farm.cluster.node import stop_node
    from farm.paths import farm_home

    site = stop_node("site", farm_home())
    text = "this host is no site that this FARM_HOME started"
    if site is not None:
        text = f"site {site.name} has left the cluster {site.cluster}"
    show.told({"stopped": site and codec.to_data(site)}, text, as_json=as_json)
    return 0


def _attended(node: Started, *, foreground: bool) -> int:
    if foreground:
        import sys

        from farm.cluster.node import attend
        from farm.paths import farm_home

        sys.stdout.flush()
        attend(node, farm_home())
    return 0


def _state(
    cluster: str | None, token: Path | None, inventory: Path | None, *, ask: bool
) -> ClusterState:
    from farm.cluster.start import enter
    from farm.commands.cluster import found_cluster
    from farm.commands.cluster_state import state_of
    from farm.paths import farm_home

    home = farm_home()
    address = found_cluster(cluster, home)
    enter(address, found_token(cluster, token), home, listens=ask)
    return state_of(address, inventory, ask=ask)


def found_token(cluster: str | None, token: Path | None) -> Path | None:
    """The token that was named; without one or a cluster, that of the node of this host."""
    from farm.cluster.node import running
    from farm.paths import farm_home

    if token is not None or cluster is not None:
        return token
    node = running("head", farm_home()) or running("site", farm_home())
    return None if node is None else Path(node.token)
