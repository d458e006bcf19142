"""How fast fixed work usually is on a device: what its earlier jobs saw, kept in FARM_HOME.

Who shares a core with somebody unseen may be slow for longer than a job takes; then only what the
device did at other times tells.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from farm.core.errors import StoreError
from farm.core.telemetry import CoreSpeed, LaunchTelemetry
from farm.statefile import changed_state

log = logging.getLogger(__name__)

_FILE = "speeds.json"
#: The fixed work of the helper, calibrate.cpp: other work can't be compared with it.
_WORK = "2000000 chained, 1000000 wide"
#: Jobs that are remembered, and how many make something usual.
_JOBS, _FEWEST = 21, 5


def usual_speeds(
    home: Path, identity: str, said: Sequence[LaunchTelemetry]
) -> tuple[CoreSpeed, ...]:
    """Return what was usual before this job, and remember what this job saw.

    Args:
        home: FARM_HOME of this host.
        identity: The device.
        said: Telemetry of the job's launches.

    Returns:
        The median of earlier jobs' fastest units, for each core; nothing while too few are known.
    """
    seen = _best(said)
    if not seen:
        return ()
    try:
        with changed_state(home / _FILE) as data:
            known = data.get(identity)
            jobs = known["jobs"] if isinstance(known, dict) and known.get("work") == _WORK else []
            data[identity] = {"work": _WORK, "jobs": [*jobs, seen][-_JOBS:]}
        return tuple(_usual(jobs))
    except StoreError as error:
        log.warning("what is usual on the device isn't known: %s", error)
        return ()


def _best(said: Iterable[LaunchTelemetry]) -> dict[str, list[int | None]]:
    """The fastest units that a job saw, by core."""
    found: dict[str, list[int | None]] = {}
    for launch in said:
        for point in (launch.before, launch.after):
            for core in () if point is None else point.cores:
                best = found.setdefault(str(core.cpu), [None, None])
                for kind, took in enumerate((core.unit_ns, core.wide_ns)):
                    best[kind] = min((t for t in (best[kind], took) if t is not None), default=None)
    return found


def _usual(jobs: Sequence[Mapping[str, Any]]) -> Iterable[CoreSpeed]:
    for cpu in sorted({cpu for job in jobs for cpu in job}, key=int):
        units, wides = (
            [took for job in jobs if (took := job.get(cpu, (None, None))[kind]) is not None]
            for kind in (0, 1)
        )
        if len(units) >= _FEWEST:
            wide = statistics.median_high(wides) if len(wides) >= _FEWEST else None
            yield CoreSpeed(int(cpu), statistics.median_high(units), wide)
