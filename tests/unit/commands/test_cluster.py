"""Who may join a cluster: the same farm, under a name of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.cluster.ray_head import Node
from farm.commands import cluster
from farm.commands.cluster_state import ClusterState, SiteState, _places
from farm.core.errors import ConfigError, PlanError

OURS = cluster.this_farm()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("farm_tree_sha256", r"farm's sources 000000000000 \(version .*\) there"),
        ("protocol", "farm's protocol 99"),
        ("python", "Python 3.9.1"),
        ("ray", "Ray 1.0"),
    ],
)
def test_another_farm_does_not_join(key: str, said: str) -> None:
    theirs = {"farm_tree_sha256": "0" * 64, "protocol": "99", "python": "3.9.1", "ray": "1.0"}
    cluster.check_same(OURS, OURS, "head:1")
    with pytest.raises(PlanError, match=said):
        cluster.check_same(OURS, {**OURS, key: theirs[key]}, "head:1")


def test_a_cluster_that_farm_did_not_start_is_not_joined() -> None:
    with pytest.raises(PlanError, match="not started by `farm cluster up`"):
        cluster.check_same(OURS, None, "head:1")


def test_names_of_sites() -> None:
    assert cluster.checked_name("rack-2.lab") == "rack-2.lab"
    for name in ("", "local", "rack 2", "a/b", "-x", "x" * 64):
        with pytest.raises(ConfigError, match="--name"):
            cluster.checked_name(name)


def node(host: str, *sites: str, alive: bool = True, since_ms: int = 0) -> Node:
    return Node(f"id-{host}", f"ip-{host}", host, False, alive, False, sites, 0, since_ms)


def test_a_name_that_is_taken_is_refused_until_its_node_is_gone() -> None:
    with pytest.raises(PlanError, match=r"site rack2 .* is a \(ip-a\) already"):
        cluster._check_name("rack2", [node("a", "rack2")], "head:1")
    cluster._check_name("rack2", [node("a", "rack2", alive=False), node("b", "rack3")], "head:1")


def test_a_site_is_where_its_living_node_is() -> None:
    nodes = (
        node("new", "rack2", since_ms=3),
        node("old", "rack2", alive=False, since_ms=9),
        node("a", "rack1", alive=False, since_ms=1),
        node("b", "rack1", alive=False, since_ms=2),
    )
    assert {name: n.host for name, n in _places(nodes).items()} == {"rack1": "b", "rack2": "new"}


def test_one_site_that_is_not_up_is_no_good_cluster() -> None:
    up = SiteState("a", "ip", "a", "up")
    assert ClusterState("c", {}, (), (up, SiteState("b", "ip", "b", "left"))).well
    for state in ("gone", "silent", "other farm", "not asked"):
        assert not ClusterState("c", {}, (), (up, SiteState("b", "ip", "b", state))).well


def test_without_a_node_here_a_cluster_has_to_be_named(tmp_path: Path) -> None:
    assert cluster.found_cluster("head:1", tmp_path) == "head:1"
    with pytest.raises(ConfigError, match="give --cluster ADDRESS"):
        cluster.found_cluster(None, tmp_path)
