"""Sites, pools and stores keep their contracts where Ray is between: two hosts, a driver on one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from farm.cluster.bound import LOOPBACK, bound_environment
from tests.command import SOURCES, share_native
from tests.contract import on_cluster
from tests.ray_nodes import ray_nodes

pytestmark = pytest.mark.ray


def test_the_contracts_hold_on_a_cluster_of_two_hosts(tmp_path: Path) -> None:
    homes = {name: tmp_path / name for name in ("driver", "head", "far")}
    for home in homes.values():
        share_native(home)
    with ray_nodes() as cluster:
        cluster.add("head", homes["head"], cpus=1)
        cluster.add("far", homes["far"], cpus=1, site="far")
        environment = {
            **bound_environment(cluster.environment(homes["driver"]), LOOPBACK, homes["driver"]),
            on_cluster.CLUSTER: cluster.address,
            on_cluster.FAR_HOME: str(homes["far"]),
        }
        # Ray warns, and leaves sockets to its own end.
        words = ["-n0", "-q", "-p", "no:cacheprovider", "-W", "default", "--basetemp"]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", *words, str(tmp_path / "base")),
                str(SOURCES / "tests/contract/on_cluster.py"),
            ],
            cwd=SOURCES, env=environment, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout
    last = done.stdout.splitlines()[-1]
    passed = re.match(r"(\d+) passed", last)
    assert passed is not None, last
    assert int(passed[1]) > len(on_cluster.__all__), last
    assert "skipped" not in last
