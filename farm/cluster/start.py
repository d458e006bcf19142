"""Start what a run works with: a pool of export hosts, and the sites with their devices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from farm.cluster.bound import check_bound, forget_preload, require_bound, restarted_bound, way_to
from farm.cluster.local_pool import LocalPool
from farm.cluster.ray_environment import set_joined_environment, set_local_environment
from farm.cluster.ray_processes import adopting, end, stopped_ray_of
from farm.cluster.start_failure import cannot_start, likely_causes, telling
from farm.cluster.token import find_token
from farm.cluster.watchdog import limited
from farm.core.errors import ConfigError, FarmError, Interrupted, PlanError
from farm.core.events import Handshake
from farm.host.limits import read_limits, usable_cpus
from farm.host.priority import usual_priority
from farm.host.signals import handled_by
from farm.paths import farm_home, outboxes
from farm.protocols import Site, TaskPool
from farm.site.agent.agent import SiteAgent
from farm.site.agent.inventory import Seen

if TYPE_CHECKING:  # Ray is imported where it is used only
    from farm.cluster.ray_stores import RayStores

log = logging.getLogger(__name__)

#: Most time that ending a pool or a site may take before it is left to its own supervision.
CLOSE_S = 3.0
#: Longest time for Ray itself to start, and then for the agent of each site to answer, seconds.
#: On an idle host each takes 3 to 8 s; on a busy one Ray may start twice.
START_LIMIT_S = 120.0
HANDSHAKE_LIMIT_S = 60.0
#: Values of `--cluster` that are no address: they end with the command.
OWN = ("local", "none")
#: CPUs of an export where the config doesn't say.
CPUS_PER_EXPORT = 2


#: What answers a request about a run, in lines.
Answers = Callable[[Mapping[str, object]], Awaitable[list[bytes]]]
Relayed = Callable[[str, Answers], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def _not_relayed(_run_id: str, _answers: Answers) -> AsyncIterator[None]:
    """Without a cluster nobody asks from elsewhere."""
    yield


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a run works with, and how it ends."""

    pool: TaskPool
    #: By name; the empty name is this host.
    sites: Mapping[str, Site]
    _stop: Callable[[], None]
    #: Lets other hosts of the cluster ask a run inside the block, given its id and what answers.
    relayed: Relayed = _not_relayed

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


def local_agent(name: str, seen: Seen | None = None) -> SiteAgent:
    """Make the agent of the host that this is called on, with that host's FARM_HOME."""
    forget_preload()
    usual_priority()
    home = farm_home()
    return SiteAgent(home, name=name, outboxes=outboxes(home, name), seen=seen)


def enter(
    cluster: str,
    token: Path | None,
    home: Path,
    *,
    listens: bool = True,
    restarts: bool = True,
) -> None:
    """Prepare this process for a cluster that is up; nothing to do for `local` and `none`.

    The first thing of a command: it may start the command again, so that its sockets are kept on
    the one interface that leads to the cluster.

    Args:
        cluster: As for `launch`.
        token: File of the cluster's token; None looks in the environment and in FARM_HOME.
        home: FARM_HOME of this host.
        listens: Whether `launch` comes next; who only asks the head takes no connections.
        restarts: Whether this process is a command of farm's; nobody else's is started again.

    Raises:
        ConfigError: There is no token, the cluster's address is none, or the process would have to
            be started again and may not be.
        PlanError: Nothing answers there.
    """
    if cluster in OWN:
        if token is not None:
            raise ConfigError("--token is for a cluster that is up: give --cluster ADDRESS too")
        return
    found = find_token(token, home, os.environ)
    address = way_to(cluster)
    if listens:
        (restarted_bound if restarts else require_bound)(address, home)
    set_joined_environment(found)


def launch(cluster: str, limit_s: float = START_LIMIT_S) -> None:
    """Start our own Ray runtime, or join a cluster; nothing to do for `none`.

    Blocks for seconds and has to be called outside the event loop: Ctrl-C ends it at once there,
    and the kernel ends Ray's processes when the thread that started them ends. A start that takes
    longer than `limit_s` ends this process, with the likely cause and the exit code of PlanError.

    Raises:
        PlanError: Ray can't start, nothing answers, or this host has no /proc.
    """
    if sys.platform == "linux" and not Path("/proc/self/stat").exists():
        raise PlanError(
            "/proc is not mounted here, and farm looks at processes and memory there: in a chroot"
            " `mount -t proc proc /proc`"
        )
    if cluster == "none":
        return
    local = cluster == "local"
    if local:
        set_local_environment()
        for cause in likely_causes():  # a start that fails may take minutes to say so
            log.warning("Ray may not start here: %s; `--cluster none` works without it", cause)
    else:
        address = way_to(cluster)
        check_bound(address)
    with adopting(), _interruptible(), limited(limit_s, cluster):
        try:
            from farm.cluster import ray_runtime
        except ImportError as error:
            raise cannot_start(f"it can't be imported: {telling(str(error))}") from error
        if local:
            ray_runtime.start_local(cpus=usable_cpus())
        else:
            ray_runtime.join(cluster, address)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let a signal that ends a run end this process at once, with what it started.

    Ray's own start can't be unwound in the middle (its native part crashes), and nothing of ours
    exists yet that would have to be cleaned up. What has a session of its own and isn't Ray's, as
    an adb server that a probe started, is nobody's child for long and stays.
    """

    def interrupt(_number: int, _frame: object) -> None:
        end(stopped_ray_of(os.getpid()))
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(child.pid) == os.getsid(0):
                    child.kill()
        os.write(2, b"farm: interrupted\n")
        os._exit(Interrupted.exit_code)

    with handled_by(interrupt):
        yield


async def start(
    cluster: str, home: Path, limit_s: float = HANDSHAKE_LIMIT_S, *, seen: Seen | None = None
) -> Runtime:
    """Provide pool and sites, after `launch`.

    Args:
        cluster: As for `launch`.
        home: FARM_HOME of this host.
        limit_s: Longest time until the agent of a site answers.
        seen: This host's devices, where they were probed while a runtime of our own started.

    Raises:
        PlanError: A site runs another farm, or its agent doesn't answer.
    """
    cpus = usable_cpus()
    if cluster == "none":
        agent = SiteAgent(home, outboxes=outboxes(home, ""))
        memory = psutil.virtual_memory().available
        if (limit := read_limits().memory_bytes) is not None:
            memory = min(memory, limit)
        pool = LocalPool(
            home, cpus, cpus_per_export=min(CPUS_PER_EXPORT, cpus), memory_bytes=memory
        )
        return Runtime(pool, {"": agent}, lambda: None)

    from farm.cluster import ray_runtime
    from farm.cluster.ray_pool import RayPool
    from farm.cluster.ray_relay import relayed
    from farm.cluster.ray_site import RaySite
    from farm.cluster.ray_stores import RayStores

    stores = None if cluster == "local" else RayStores(home)
    sites: dict[str, Site]
    if cluster == "local":
        sites = {"": RaySite("local", partial(local_agent, "", seen))}
    else:
        sites = {"": SiteAgent(home, outboxes=outboxes(home, "")), **joined_sites(stores)}
    tasks = RayPool(cpus_per_export=min(CPUS_PER_EXPORT, cpus), stores=stores)
    elsewhere = _not_relayed if cluster == "local" else relayed
    runtime = Runtime(tasks, sites, ray_runtime.stop, elsewhere)
    try:
        await _shake_hands(runtime.sites, await SiteAgent(home).handshake(), limit_s)
    except BaseException:
        await runtime.close()
        raise
    return runtime


def forsake(cluster: str) -> None:
    """End a runtime of our own that `launch` began and nobody goes on with."""
    if cluster == "local":
        from farm.cluster import ray_runtime

        ray_runtime.stop()


@contextlib.asynccontextmanager
async def started(cluster: str, home: Path, *, seen: Seen | None = None) -> AsyncIterator[Runtime]:
    """Provide what `start` returns, and close it at the end of the block."""
    runtime = await start(cluster, home, seen=seen)
    try:
        yield runtime
    finally:
        await runtime.close()


def joined_sites(stores: RayStores | None = None) -> dict[str, Site]:
    """Return the agents of the joined cluster, by name; one is started where none runs yet.

    Args:
        stores: What carries objects there; None where none have to travel.
    """
    from farm.cluster import ray_runtime
    from farm.cluster.ray_site import RaySite

    return {
        name: RaySite(name, partial(local_agent, name), detached=True, stores=stores)
        for name in ray_runtime.site_names()
    }


async def _shake_hands(sites: Mapping[str, Site], ours: Handshake, limit_s: float) -> None:
    await asyncio.gather(*(_shake_hand(site, name, ours, limit_s) for name, site in sites.items()))


async def _shake_hand(site: Site, name: str, ours: Handshake, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            theirs = await site.handshake()
    except TimeoutError:
        seen = f"its worker for this host's devices did not start within {limit_s:.0f} s"
        raise _no_handshake(name, seen) from None
    except FarmError as error:
        raise _no_handshake(name, telling(error.message)) from error
    for what in ("protocol", "farm_tree_sha256", "python"):
        here, there = getattr(ours, what), getattr(theirs, what)
        if here != there:
            raise PlanError(
                f"site {name or 'local'} runs another farm: {what} is {there} there and"
                f" {here} here. Install the same version on both; an agent of the old one"
                " ends with `ray stop` on its host."
            )


def _no_handshake(name: str, seen: str) -> PlanError:
    """Return the error of a site whose agent doesn't come up."""
    if not name:
        return cannot_start(seen)
    return PlanError(
        f"site {name} does not answer: {seen}. Look at `ray status` and at Ray's logs there, or"
        " leave its devices out with --select."
    )
