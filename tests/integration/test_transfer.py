"""Several hosts: what one exports is measured at another, and an agent is killed meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from farm.paths import store_root
from farm.store.objects import ContentStore
from tests import command
from tests.command import CONFIGS, share_native
from tests.ray_nodes import RayNodes, ray_nodes

pytestmark = [pytest.mark.ray, pytest.mark.export]

_INVENTORY = """
devices: [{name: far, site: alpha, transport: local}]
defaults: {adb: none, local: false}
"""


def objects(home: Path) -> set[str]:
    return {ref.sha256 for ref in ContentStore(store_root(home)).listing()}


def start(cluster: RayNodes, home: Path, cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return command.start(
        [sys.executable, "-m", "farm", "run", str(CONFIGS / "tiny.yaml"), *arguments],
        env=cluster.environment(home),
        cwd=cwd,
        stderr=subprocess.STDOUT,
    )


def test_a_run_over_three_hosts_that_loses_a_worker_and_an_agent(
    warm_home: Path, tmp_path: Path
) -> None:
    """The driver stands on the head, with a store of its own; only `exports` has the artifact."""
    homes = {name: tmp_path / name for name in ("driver", "head", "site")}
    for home in homes.values():
        share_native(home)
    (tmp_path / "inventory.yaml").write_text(_INVENTORY)
    with ray_nodes() as cluster:
        head = cluster.add("head", homes["head"], cpus=2)
        cluster.add("exports", warm_home, cpus=2)
        site = cluster.add("site", homes["site"], cpus=0, site="alpha")
        running = start(
            cluster, homes["driver"], tmp_path, "--quick", "--live", "off",
            "--cluster", cluster.address, "--inventory", str(tmp_path / "inventory.yaml"),
            "--set", "workload.launches=3", "--set", "correctness.canary=false",
        )  # fmt: skip
        assert running.stdout is not None
        lines, killed = [], set()
        # Who is killed at which word: the worker that exports anew, the agent that measures.
        victims = {" read 1/": (head, "export:"), "far: measure": (site, "_Agent")}
        for line in running.stdout:
            lines.append(line)
            for word in [word for word in victims if word in line and word not in killed]:
                node, name = victims[word]
                # A child between fork and exec has its parent's name.
                worker = min(node.workers(name), key=lambda process: process.create_time())
                worker.kill()
                killed.add(word)
        assert running.wait() == 0, "".join(lines)
        assert killed == set(victims), "".join(lines)

    report: dict[str, Any] = json.loads((tmp_path / "runs/latest/report.json").read_text())
    (result,) = report["results"]
    assert result["outcome"] == "passed"
    assert "retried" in result["flags"]
    lost, ran = result["attempts"]
    assert (lost["outcome"], lost["error"]["kind"], ran["outcome"]) == (
        "errored", "SiteLost", "ran",
    )  # fmt: skip
    assert "the agent of site alpha was started anew; jobs lost: 1" in report["alarms"]
    (export,) = report["exports"]
    assert export["cache_hit"], "started once more on the other node, which had it"
    program = export["artifact"]["sha256"]
    # The head may have it too: host tasks run there or where the artifact already is.
    places = {name: program in objects(homes[name]) for name in ("driver", "site")}
    assert places == {"driver": True, "site": True}
    logs = list((tmp_path / "runs/latest/attempts").rglob("*.stdout"))
    assert logs, "logs of the far host are here"
    kept = list((homes["site"] / "outboxes").rglob("*.db"))
    assert kept == [], "a run that is over leaves nothing with the agent"
