"""A cluster of farm: its head, and the sites that join it.

Nodes are Ray's; which farm may join, and under what name, is decided here before Ray is asked.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from farm.cluster.bound import way_to
from farm.cluster.node import Started, running, start_node, stop_node
from farm.cluster.ray_environment import set_joined_environment
from farm.cluster.token import find_token, made_token
from farm.core.errors import ConfigError, PlanError
from farm.host.facts import farm_report
from farm.site.agent.agent import PROTOCOL

if TYPE_CHECKING:  # Ray reads the environment when it is imported, which is prepared first
    from farm.cluster.ray_head import Node

#: What has to be the same on every host of a cluster, and what people call it.
_SAME = {
    "farm_tree_sha256": "farm's sources",
    "protocol": "farm's protocol",
    "python": "Python",
    "ray": "Ray",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def up(address: str, port: int, cpus: int, home: Path) -> Started:
    """Start the head of a cluster on this host.

    Args:
        address: The one address that its sockets are bound to.
        port: Of the head.
        cpus: Host tasks that may run here at once.
        home: FARM_HOME.

    Raises:
        PlanError: One runs already, the port is taken, or Ray can't start.
        ConfigError, StoreError: The token.
    """
    token = made_token(home)
    set_joined_environment(token)
    cluster = f"{address}:{port}"
    if running("head", home) is None:
        _check_free(address, port)

    def ready() -> bool:
        if not _listens(address, port):
            return False
        from farm.cluster.ray_head import Head

        head = Head(cluster)
        if not any(node.alive for node in head.nodes()):
            return False
        head.announce(this_farm())
        return True

    words = ["--head", "--port", str(port), "--num-cpus", str(cpus)]
    words += ["--include-dashboard", "false", "--no-monitor"]
    return start_node(
        "head", words, home, cluster=cluster, address=address, name="", token=token, ready=ready
    )


def join(
    cluster: str, token: Path | None, name: str | None, address: str | None, cpus: int, home: Path
) -> Started:
    """Make this host a site of a cluster.

    Args:
        cluster: Address of its head.
        token: File of its token; None looks as every command does.
        name: Of the site; None is the host's own.
        address: What its sockets are bound to; None is the one on the way to the head.
        cpus: Host tasks that may run here at once; with 0 this host only has devices.
        home: FARM_HOME.

    Raises:
        PlanError: Nothing answers, the head runs another farm, the name is taken, or Ray can't
            start.
        ConfigError: The name or the token.
    """
    name = checked_name(name or socket.gethostname().partition(".")[0])
    own = way_to(cluster)
    token = find_token(token, home, os.environ)
    set_joined_environment(token)
    from farm.cluster.ray_head import Head

    head = Head(cluster)
    check_same(this_farm(), head.farm(), cluster)
    before = head.nodes()
    _check_name(name, before, cluster)
    known = {node.node_id for node in before}

    def mine() -> list[Node]:
        """Living nodes with this name that were not there before, the first one first."""
        return [n for n in head.nodes() if n.alive and name in n.sites and n.node_id not in known]

    bound = address or own
    words = ["--address", cluster, "--num-cpus", str(cpus)]
    words += ["--resources", json.dumps({f"site:{name}": 1})]
    started = start_node(
        "site", words, home, cluster=cluster, address=bound, name=name, token=token,
        ready=lambda: any(node.address == bound for node in mine()),
    )  # fmt: skip
    first = mine()[0]
    if first.address != bound:  # two hosts asked for it at the same moment
        stop_node("site", home)
        _check_name(name, [first], cluster)
    return started


def this_farm() -> dict[str, str]:
    """Return what has to be the same on every host of a cluster."""
    farm = farm_report()
    return {
        "version": farm.version,
        "farm_tree_sha256": farm.tree_sha256,
        "protocol": str(PROTOCOL),
        "python": platform.python_version(),
        "ray": importlib.metadata.version("ray"),
    }


def check_same(ours: Mapping[str, str], theirs: Mapping[str, str] | None, cluster: str) -> None:
    """Refuse to join a cluster of another farm.

    Raises:
        PlanError: Something differs; names both sides.
    """
    if theirs is None:
        raise PlanError(
            f"the cluster at {cluster} was not started by `farm cluster up`: nobody says which farm"
            " runs there. Start it anew with that command"
        )
    for key, what in _SAME.items():
        here, there = ours[key], theirs.get(key, "unknown")
        if here != there:
            raise PlanError(
                f"the head at {cluster} runs another farm: {what} {_short(there)} (version"
                f" {theirs.get('version', 'unknown')}) there, {_short(here)} (version"
                f" {ours['version']}) here. Install the same version on both"
            )


def checked_name(name: str) -> str:
    """Return the name of a site.

    Raises:
        ConfigError: It can't be one.
    """
    if not _NAME.fullmatch(name) or name == "local":
        raise ConfigError(
            f"a site can't be called {name!r}: give --name with letters, digits, '.', '_' or '-'"
            " ('local' is taken: every cluster of one run has it)"
        )
    return name


def _check_name(name: str, nodes: list[Node], cluster: str) -> None:
    taken = next((node for node in nodes if node.alive and name in node.sites), None)
    if taken is not None:
        raise PlanError(
            f"site {name} of the cluster at {cluster} is {taken.host} ({taken.address}) already:"
            " give this host another --name, or end that one with `farm site stop` there"
        )


def _check_free(address: str, port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        raise PlanError(
            f"{address}:{port} can't be used: {error.strerror}; another cluster may have it. Give"
            " --port"
        ) from error


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _short(text: str) -> str:
    return text[:12] if len(text) == 64 else text


def found_cluster(cluster: str | None, home: Path) -> str:
    """Return the address of the cluster that is meant: the one named, else this host's.

    Raises:
        ConfigError: None is named, and no node was started here.
    """
    if cluster is not None:
        return cluster
    for kind in ("head", "site"):
        node = running(kind, home)
        if node is not None:
            return node.cluster
    raise ConfigError(
        f"which cluster? Nothing runs here that this FARM_HOME ({home}) started: give --cluster"
        " ADDRESS, or start one with `farm cluster up`"
    )
