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

start.launch("local")
asyncio.run(main())
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
