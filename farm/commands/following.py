"""A run that goes on, watched and ended from any host of its cluster.

Its own host has a socket for that: farm.run.control.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from farm.cluster import start as cluster_start
from farm.core.errors import ConfigError
from farm.core.view import RunEnded, ViewEvent
from farm.run.control import cancelling, check_cancelled, from_line

#: Pause after an answer with events: what a person sees is no later than that, seconds.
_LOOK_S = 0.2


def watch(cluster: str, run: str) -> Iterator[ViewEvent]:
    """Yield the events of a run of a cluster until it ends; after `start.enter`.

    Raises:
        ConfigError: No such run goes on there.
        StoreError: It ended without a last event, or doesn't answer.
    """
    cluster_start.launch(cluster)
    from farm.cluster import ray_relay

    run_id, after = _named(run), 0
    while True:
        for line in ray_relay.ask(run_id, {"events": after}):
            after, event = from_line(line)
            yield event
            if isinstance(event, RunEnded):
                return
        time.sleep(_LOOK_S)


def cancel(cluster: str, run: str, cell_id: str, by: str) -> str:
    """End a run of a cluster, or one cell of it; after `start.enter`. Returns its id.

    Raises:
        ConfigError: No such run goes on there, or it has no such cell that is open.
        StoreError: It doesn't answer.
    """
    cluster_start.launch(cluster)
    return end(run, cell_id, by)


def end(run: str, cell_id: str, by: str) -> str:
    """The same inside a cluster that is joined already.

    Raises:
        ConfigError, StoreError: As `cancel`.
    """
    from farm.cluster import ray_relay

    run_id = _named(run)
    check_cancelled(ray_relay.ask(run_id, cancelling(cell_id, by)), run_id)
    return run_id


def _named(run: str) -> str:
    """Return the id of a run: `latest` is the one that goes on."""
    from farm.cluster import ray_relay

    if run != "latest":
        return run
    known = ray_relay.names()
    if len(known) != 1:
        raise ConfigError(
            f"`latest` could be any of {', '.join(known)}: name one"
            if known
            else "no run goes on in this cluster"
        )
    return known[0]
