"""Devices wherever they hang, on this host or at a site of a cluster, and work where they hang."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from farm.cluster import start as cluster_start
from farm.core.artifact import ObjectRef
from farm.core.device import Device, Inventory
from farm.core.errors import ConfigError
from farm.paths import quarantine_file
from farm.planning.devices import find_devices, survey
from farm.protocols import PROBE_LIMIT_S, Site
from farm.state.health_book import HealthBook

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Runs something of the cluster's event loop, from any other thread.
Ask = Callable[[Coroutine[Any, Any, Any]], Any]

#: Longest time for a short piece of work on a device, by way of its site; seconds.
WORK_S = 120.0


class Reach:
    """What of the inventory can be reached. Any thread may use it but the cluster's own.

    Args:
        home: FARM_HOME of this host.
        sites: Agents of the cluster, by name; None where there is no cluster.
        ask: Runs their calls.
    """

    def __init__(
        self, home: Path, sites: Mapping[str, Site] | None = None, ask: Ask | None = None
    ) -> None:
        self._home, self._sites, self._ask = home, sites, ask

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the cluster's sites."""
        return tuple(name for name in self._sites or () if name)

    def look(
        self, inventory: Inventory, select: str, limit_s: float = PROBE_LIMIT_S
    ) -> tuple[Device, ...]:
        """Probe the devices that match; those of a host that isn't reached are only named.

        Args:
            inventory: The devices.
            select: Selector; empty for all.
            limit_s: Longest time that a silent device may take.
        """
        if self._sites is None or self._ask is None:
            return survey(inventory, select, self._home, limit_s)
        found = self._ask(find_devices(self._sites, inventory, select, limit_s=limit_s))
        return HealthBook(quarantine_file(self._home)).apply(found)

    def at(
        self,
        site: str,
        work: Callable[..., T],
        *arguments: object,
        limit_s: float = WORK_S,
        ended: threading.Event | None = None,
    ) -> T:
        """Call `work(FARM_HOME, *arguments)` on the host of a site; the empty name is this host.

        Args:
            site: The site.
            work: A function of a module; it travels by its name.
            arguments: What it is called with.
            limit_s: Longest time for it at another host.
            ended: Set to end it early there.

        Raises:
            ConfigError: No such site is reached.
            FarmError: What `work` raises, or the site doesn't answer.
        """
        if not site:
            return work(self._home, *arguments)
        self._known(site)
        from farm.cluster.ray_errand import run_at

        return run_at(site, work, *arguments, limit_s=limit_s, ended=ended)

    def bring(self, refs: Sequence[ObjectRef], site: str) -> None:
        """Make objects present in the store of a site's host; nothing to do for this host.

        Raises:
            ConfigError: No such site is reached.
            StoreError: No host has one, or the disk there is full.
            SiteLost: The host is gone.
        """
        if site:
            self._told(self._known(site).ensure(refs, str(self._home)))

    def collect(self, refs: Sequence[ObjectRef], site: str) -> None:
        """Bring objects of a site's host here.

        Raises:
            ConfigError, StoreError, SiteLost: As `bring`.
        """
        self._told(self._known(site).collect(refs))

    def _told(self, work: Coroutine[Any, Any, tuple[str, ...]]) -> None:
        assert self._ask is not None, "sites come with a loop"
        for remark in self._ask(work):
            log.warning("%s", remark)

    def _known(self, site: str) -> Site:
        if self._sites is None:
            raise ConfigError(
                f"site {site} is another host: give --cluster ADDRESS, or run this command there"
            )
        if site not in self._sites:
            names = ", ".join(self.sites) or "none"
            raise ConfigError(f"site {site} is not in this cluster, which has {names}")
        return self._sites[site]


@contextlib.contextmanager
def reaching(cluster: str, home: Path) -> Iterator[Reach]:
    """Reach the devices of this host and, with a cluster, those of its sites.

    The calls to agents run in a thread of their own: signals stay with whoever uses this.

    Args:
        cluster: Its address, which `farm.cluster.start.enter` has prepared; `none` or `local`: no
            cluster.
        home: FARM_HOME of this host.

    Raises:
        PlanError: The cluster can't be joined, or a site runs another farm.
    """
    if cluster in cluster_start.OWN:
        yield Reach(home)
        return
    cluster_start.launch(cluster)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="farm-reach", daemon=True)
    thread.start()

    def ask(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        runtime = ask(cluster_start.start(cluster, home))
        try:
            yield Reach(home, runtime.sites, ask)
        finally:
            ask(runtime.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
