"""The agent of a host on a joined cluster: several controllers, none of which ends it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import SOURCES

pytestmark = pytest.mark.ray

_TWO = """
import asyncio
from functools import partial
from pathlib import Path
from farm.cluster import start
from farm.core.errors import FarmError

async def main():
    from farm.cluster.ray_site import RaySite
    one, other = (RaySite("local", partial(start.local_agent, "x"), detached=True) for _ in "ab")
    assert await one.handshake() == await other.handshake()
    await one.close()
    async with asyncio.timeout(20):
        await other.handshake()
    own = RaySite("local", partial(start.local_agent, ""))
    await own.handshake()
    await own.close()
    try:
        async with asyncio.timeout(60):
            while True:  # Ray ends an actor a moment after it was told to
                await own.handshake()
    except FarmError as error:
        print("other lives, own ended:", error)

async def asked():
    # A run that is watched and cancelled from elsewhere in its cluster, then ends.
    from farm.cluster import ray_relay
    from farm.core.errors import ConfigError
    from farm.core.events import JobStarted
    from farm.core.runtime import AttemptId
    from farm.core.view import RunEnded
    from farm.commands import following
    from farm.run.control import ControlServer

    server, cancelled = ControlServer(Path(".")), []
    server.cancels(lambda cell_id, by: cancelled.append((cell_id, by)) or "")
    async with ray_relay.relayed("r1", server.answer):
        assert ray_relay.names() == ["r1"]
        server.emit(JobStarted(AttemptId("r1", 1, "cell:a", 1), "phone", "now"))
        seen = asyncio.to_thread(lambda: list(following.watch(".", "latest")))
        watching = asyncio.create_task(seen)
        told = await asyncio.to_thread(following.cancel, ".", "r1", "cell:a", "ann@desk")
        assert (told, cancelled) == ("r1", [("cell:a", "ann@desk")])
        try:
            await asyncio.to_thread(following.cancel, ".", "r2", "cell:a", "ann@desk")
        except ConfigError as error:
            print(error)
        await asyncio.sleep(0.3)
        server.emit(RunEnded("0/1 judged", 3))
    print([type(event).__name__ for event in await watching])
    assert ray_relay.names() == []

    # What others ask through may end, and may not begin: the run goes on to its own end.
    import ray
    async with ray_relay.relayed("r3", server.answer):
        ray.kill(ray.get_actor("farm-run-r3"))
    ray_relay._NAME_S = 0.0
    holder = ray.remote(ray_relay._Mailbox).options(name="farm-run-r4", num_cpus=0).remote()
    async with ray_relay.relayed("r4", server.answer):
        print("goes on without r3 and r4")

async def pooled():
    # A host that a device of the run measures is left alone: by a label of Ray's, or not at all.
    from farm.cluster.ray_pool import RayPool
    from farm.core.artifact import (ModelSource, Recipe, Toolchain)
    from farm.core.reference import (ReferenceRequest)
    from farm.core.tasks import TokensTask
    from tests.unit.core.builders import bundle

    pool = RayPool(cpus_per_export=1)
    (here,) = pool.hosts().names
    assert pool.hosts().host_of("local") == pool.hosts().host_of("") == here
    model, recipe = ModelSource("tiny-llama"), Recipe("xnnpack-8da4w")
    request = ReferenceRequest(model, recipe, Toolchain("default"), bundle(), "builtin", 16, "Hi")
    task = TokensTask("tokens:tiny", request)
    given = await pool.run(task, lambda event: None, frozenset({"f" * 56}))
    print(len(given.tokens), "ids beside another node")
    try:
        await pool.run(task, lambda event: None, frozenset({here}))
    except FarmError as error:
        print(error)
    # What was asked for fits on no host that is left: they went when it had not begun.
    from farm.cluster import ray_pool
    from farm.core.artifact import ExportRequest
    from farm.core.spec import Resources
    from farm.core.tasks import ExportTask

    ray_pool.granted = lambda asked, nodes, cpus: Resources(999)
    try:
        async with asyncio.timeout(60):
            big = ExportTask("export:big", ExportRequest(model, recipe, Toolchain("default")))
            await pool.run(big, lambda event: None)
    except FarmError as error:
        print(error)
    await pool.close()

start.launch("local")
start.launch = lambda cluster: None
asyncio.run(main())
asyncio.run(asked())
asyncio.run(pooled())
"""


def test_a_controller_that_leaves_ends_only_what_is_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "FARM_HOME": str(tmp_path), "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(
        [sys.executable, "-c", _TWO],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "other lives, own ended: site local: its agent was lost" in done.stdout
    assert "no run 'r2' goes on in this cluster, which has r1" in done.stdout
    assert "['JobStarted', 'RunEnded']" in done.stdout
    assert "16 ids beside another node" in done.stdout
    assert "tokens:tiny: every node that is left is measured by this run" in done.stdout
    assert "goes on without r3 and r4" in done.stdout
    assert "export:big: its Ray worker was lost twice: no host is left" in done.stdout
