"""Probing this host's devices while Ray starts: the agent, which comes up later, takes it over."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Thread

import runners
from farm import transports
from farm.core.device import Inventory
from farm.paths import store_root
from farm.planning.devices import entries_by_site
from farm.protocols import PROBE_LIMIT_S
from farm.site.agent.discovery import discover_adb
from farm.site.agent.inventory import Seen, look
from farm.site.context import SiteContext
from farm.store.objects import ContentStore


def probing(cluster: str, inventory: Inventory, home: Path) -> Callable[[], Seen | None]:
    """Begin to probe where this command starts a runtime of its own.

    Args:
        cluster: As for `farm.cluster.start.launch`.
        inventory: The devices.
        home: FARM_HOME of this host.

    Returns:
        Waits for what was seen, and raises what went wrong; None where nothing was begun: agents
        of other clusters run already, and without one there is nothing to wait for.
    """
    if cluster != "local":
        return lambda: None
    entries = tuple(entries_by_site(inventory, ("",))[""])
    discover = partial(discover_adb, entries, "") if inventory.adb_auto else None
    context = SiteContext(home, ContentStore(store_root(home)), transports.open, runners.find)
    found: Future[Seen] = Future()

    def probe() -> None:
        try:
            devices = look(entries, discover, context, PROBE_LIMIT_S)
            found.set_result(Seen(entries, inventory.adb_auto, tuple(devices)))
        except Exception as error:  # raised where it is waited for
            found.set_exception(error)

    Thread(target=probe, name="farm-ahead", daemon=True).start()
    return found.result
