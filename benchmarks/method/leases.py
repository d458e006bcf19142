"""Two controllers ask one agent for one device again and again: how long until a job has its lease.

Ran as a program it is one of the controllers: a process of its own that has joined the cluster.
Jobs run a toy program of some milliseconds; agent, helper and device are real.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from farm.cluster import start
from farm.cluster.bound import LOOPBACK, restarted_bound
from farm.core.device import DeviceEntry
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.runner import DeployFile, RunnerSpec
from farm.core.runtime import DeviceJob, LaunchRequest
from farm.paths import farm_home, outboxes, store_root
from farm.site.agent.agent import SiteAgent
from farm.store.objects import ContentStore
from tests.contract.toy_runner import GOOD, ToyRunner
from tests.ray_nodes import RayNodes

_SITE = "far"


def toy_agent(folder: str) -> SiteAgent:
    """Make the agent inside its actor."""
    home = farm_home()
    return SiteAgent(
        home,
        name=_SITE,
        outboxes=outboxes(home, _SITE),
        find_runner=lambda _spec: ToyRunner(Path(folder)),
        discover=lambda _named, _site: [],
    )


def measure(cluster: RayNodes, home: Path, folder: Path, jobs: int) -> dict[str, float]:
    """Let two controllers take turns at a device of the site."""
    words = [sys.executable, "-m", "benchmarks.method.leases", cluster.address, str(folder)]
    controllers = [
        subprocess.Popen(
            [*words, f"run-{number}", str(jobs)],
            stdout=subprocess.PIPE,
            text=True,
            env=cluster.environment(home),
        )
        for number in (1, 2)
    ]
    leased, waited = list[float](), list[float]()
    for controller in controllers:
        printed, _ = controller.communicate(timeout=1800)
        if controller.returncode != 0:
            raise SystemExit(f"a controller ended with {controller.returncode}")
        answer = json.loads(printed.splitlines()[-1])
        leased += answer["leased"]
        waited += answer["waited"]
    return {
        "lease_jobs": len(leased),
        "lease_p50_ms": _percentile(leased, 50),
        "lease_p99_ms": _percentile(leased, 99),
        "turn_p50_ms": _percentile(waited, 50),
        "turn_p99_ms": _percentile(waited, 99),
    }


def _percentile(seconds: list[float], percent: int) -> float:
    return round(1000 * statistics.quantiles(seconds, n=100)[percent - 1], 1)


async def _control(folder: str, run_id: str, jobs: int) -> dict[str, list[float]]:
    from farm.cluster.ray_site import RaySite

    site = RaySite(_SITE, partial(toy_agent, folder), detached=True)
    entry = DeviceEntry("shared", "local", site=_SITE, root=f"{folder}/device")
    await site.inventory([entry], adb_auto=False)
    ref = ContentStore(store_root(farm_home())).put_bytes(GOOD.encode(), "model.pte")
    await site.ensure([ref], str(farm_home()))
    attached = await site.attach(run_id, 1)
    seq, found = 0, {"leased": list[float](), "waited": list[float]()}
    for number in range(jobs):
        job = DeviceJob(
            job_id=f"job{number}", attempt=1, epoch=1, run_id=run_id, cell_id=f"job{number}",
            device="shared", runner=RunnerSpec("toy"), artifact=(DeployFile(ref, "model.pte"),),
            launches=(LaunchRequest(1, timeout_s=60.0),),
        )  # fmt: skip
        asked = time.monotonic()
        began: float | None = None
        had: float | None = None
        await site.submit([job], attached.boot_id)
        ended = False
        while not ended:
            polled = await site.poll(run_id, seq, 2.0, attached.boot_id)
            for item in polled.events:
                seq = item.seq
                event: Any = item.event
                if isinstance(event, JobStarted):
                    began = time.monotonic()
                elif isinstance(event, JobProgress) and event.stage == "deploy":
                    had = had or time.monotonic()
                elif isinstance(event, JobFinished):
                    if event.error is not None:
                        raise event.error
                    ended = True
        if began is None or had is None:
            raise SystemExit(f"{run_id}: job {number} was never seen to lease its device")
        found["leased"].append(had - began)
        found["waited"].append(began - asked)
    await site.detach(run_id)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cluster")
    parser.add_argument("folder")
    parser.add_argument("run_id")
    parser.add_argument("jobs", type=int)
    options = parser.parse_args()
    restarted_bound(LOOPBACK, farm_home())
    start.launch(options.cluster)
    print(json.dumps(asyncio.run(_control(options.folder, options.run_id, options.jobs))))


if __name__ == "__main__":
    main()
