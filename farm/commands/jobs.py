"""Jobs of a command that is no run: brought to the sites of their devices, and waited for."""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Callable, Mapping, Sequence

from farm.core.errors import SiteLost
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.runtime import DeviceJob
from farm.core.view import ViewEvent
from farm.protocols import Site
from farm.run.job_data import needed_objects
from farm.store.actions import object_refs

#: A poll returns at once when there are events, else after this long, seconds.
LINGER_S = 2.0

Emit = Callable[[ViewEvent], None]


def job_run_id(command: str) -> str:
    """Return a run id for the jobs of a command: two of one user are two, also at one moment."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{command}-{now:%Y%m%d-%H%M%S}-{os.getpid()}"


async def perform(
    jobs: Sequence[DeviceJob],
    site_of: Mapping[str, str],
    sites: Mapping[str, Site],
    store_home: str,
    emit: Emit,
) -> list[JobFinished]:
    """Run jobs, each site's side by side with the others'; what they measured comes to this host.

    Args:
        jobs: What to run, all of one run id.
        site_of: Site by device.
        sites: By name; the empty name is this host's.
        store_home: FARM_HOME of this host, where the objects are.
        emit: Receives view events.

    Raises:
        FarmError: A site refused them, or is lost.
    """
    by_site: dict[str, list[DeviceJob]] = {}
    for job in jobs:
        by_site.setdefault(site_of[job.device], []).append(job)
    ended = await asyncio.gather(
        *(_at(sites[name], mine, store_home, emit) for name, mine in by_site.items())
    )
    return [event for events in ended for event in events]


async def _at(
    site: Site, jobs: Sequence[DeviceJob], store_home: str, emit: Emit
) -> list[JobFinished]:
    run_id = jobs[0].run_id
    found = await site.attach(run_id, jobs[0].epoch)
    try:
        refs = dict.fromkeys(ref for job in jobs for ref in needed_objects(job))
        await site.ensure(list(refs), store_home)
        await site.submit(jobs, found.boot_id)
        ended: list[JobFinished] = []
        after = 0
        while len(ended) < len(jobs):
            polled = await site.poll(run_id, after, LINGER_S, found.boot_id)
            if polled.boot_id != found.boot_id:
                raise SiteLost(f"the agent of site {site.name or 'local'} was started anew")
            for item in polled.events:
                after, event = item.seq, item.event
                if isinstance(event, JobStarted | JobProgress | JobFinished):
                    emit(event)
                if isinstance(event, JobFinished):
                    ended.append(event)
        left = [(event.result and event.result.launches, event.logs) for event in ended]
        await site.collect(list(dict.fromkeys(object_refs(left))))
        return ended
    finally:
        await site.detach(run_id)
