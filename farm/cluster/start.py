"""Start what a run works with: a pool of export hosts, and the sites with their devices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from farm.cluster.local_pool import LocalPool
from farm.core.errors import FarmError, Interrupted, PlanError
from farm.core.events import Handshake
from farm.paths import farm_home
from farm.protocols import Site, TaskPool
from farm.site.agent.agent import SiteAgent

log = logging.getLogger(__name__)

#: Most time that ending a pool or a site may take before it is left to its own supervision.
CLOSE_S = 3.0
#: CPUs of an export where the config doesn't say.
CPUS_PER_EXPORT = 2


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a run works with, and how it ends."""

    pool: TaskPool
    #: By name; the empty name is this host.
    sites: Mapping[str, Site]
    _stop: Callable[[], None]

    async def close(self) -> None:
        """End every task and job, then the cluster if it is ours. Within 4 s."""
        parts = [self.pool.close(), *(site.close() for site in self.sites.values())]
        limited = [asyncio.wait_for(part, CLOSE_S) for part in parts]
        for outcome in await asyncio.gather(*limited, return_exceptions=True):
            if isinstance(outcome, TimeoutError | FarmError):
                log.warning("something did not end in time: %r", outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        self._stop()


def local_agent(name: str) -> SiteAgent:
    """Make the agent of the host that this is called on, with that host's FARM_HOME."""
    return SiteAgent(farm_home(), name=name)


def launch(cluster: str) -> None:
    """Start our own Ray runtime, or join a cluster; nothing to do for `none`.

    Blocks for seconds and has to be called outside the event loop: Ctrl-C ends it at once there,
    and the kernel ends Ray's processes when the thread that started them ends.

    Raises:
        PlanError: Ray can't start, or nothing answers.
    """
    if cluster == "none":
        return
    # Ray reads these when it is imported. A cluster of our own listens on loopback only and lives
    # for one command; on any other an open port is code execution, so its token is required.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled" if cluster == "local" else "token")
    from farm.cluster import ray_runtime

    with _interruptible():
        if cluster == "local":
            ray_runtime.start_local(cpus=os.cpu_count() or 1)
        else:
            ray_runtime.join(cluster)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end this process at once, with what it started.

    Ray's own start can't be unwound in the middle (its native part crashes), and nothing of ours
    exists yet that would have to be cleaned up.
    """

    def end(_number: int, _frame: object) -> None:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
        os.write(2, b"farm: interrupted\n")
        os._exit(Interrupted.exit_code)

    previous = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


async def start(cluster: str, home: Path) -> Runtime:
    """Provide pool and sites, after `launch`.

    Args:
        cluster: As for `launch`.
        home: FARM_HOME of this host.

    Raises:
        PlanError: A site runs another farm.
    """
    cpus = os.cpu_count() or 1
    if cluster == "none":
        agent = SiteAgent(home)
        memory = psutil.virtual_memory().available
        pool = LocalPool(
            home, cpus, cpus_per_export=min(CPUS_PER_EXPORT, cpus), memory_bytes=memory
        )
        return Runtime(pool, {"": agent}, lambda: None)

    from farm.cluster import ray_runtime
    from farm.cluster.ray_pool import RayPool
    from farm.cluster.ray_site import RaySite

    sites: dict[str, Site]
    if cluster == "local":
        sites = {"": RaySite("local", partial(local_agent, ""))}
    else:
        sites = {"": SiteAgent(home)}
        for name in ray_runtime.site_names():
            sites[name] = RaySite(name, partial(local_agent, name), detached=True)
    runtime = Runtime(RayPool(cpus_per_export=min(CPUS_PER_EXPORT, cpus)), sites, ray_runtime.stop)
    try:
        await _shake_hands(runtime.sites, await SiteAgent(home).handshake())
    except BaseException:
        await runtime.close()
        raise
    return runtime


async def _shake_hands(sites: Mapping[str, Site], ours: Handshake) -> None:
    for name, site in sites.items():
        theirs = await site.handshake()
        for what in ("protocol", "farm_tree_sha256", "python"):
            here, there = getattr(ours, what), getattr(theirs, what)
            if here != there:
                raise PlanError(
                    f"site {name or 'local'} runs another farm: {what} is {there} there and"
                    f" {here} here. Install the same version on both."
                )
