"""How fast fixed work usually is on a device: what its earlier jobs measured, kept in FARM_HOME.

A virtual machine may share its cores with others for longer than a job takes. Then only a
comparison with earlier jobs shows that it is slow.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from farm.core.errors import StoreError
from farm.core.telemetry import NOTHING_USUAL, CoreSpeed, LaunchTelemetry, Usual
from farm.state.json_file import changed_state

log = logging.getLogger(__name__)

_FILE = "speeds.json"
#: The fixed work of the helper, calibrate.cpp: other work can't be compared with it.
_WORK = "2000000 chained, 1000000 wide, passes over 64 MiB"
#: Jobs that are remembered, and how many make something usual.
_JOBS, _FEWEST = 21, 5
#: What a job saw, by the name of the work: `chained 0` and `wide 0` of core 0, `memory`.
_Seen = Mapping[str, int]


def usual_speeds(home: Path, identity: str, launches: Sequence[LaunchTelemetry]) -> Usual:
    """Return what was usual before this job, and remember what this job saw.

    Args:
        home: FARM_HOME of this host.
        identity: The device.
        launches: Telemetry of the job's launches.

    Returns:
        The median of earlier jobs' best; nothing while too few are known.
    """
    seen = _best(launches)
    if not seen:
        return NOTHING_USUAL
    try:
        with changed_state(home / _FILE) as data:
            known = data.get(identity)
            jobs: list[_Seen] = []
            if isinstance(known, dict) and known.get("work") == _WORK:
                jobs = known["jobs"]
            data[identity] = {"work": _WORK, "jobs": [*jobs, seen][-_JOBS:]}
    except StoreError as error:
        log.warning("what is usual on the device isn't known: %s", error)
        return NOTHING_USUAL
    return _usual(jobs)


def _best(launches: Iterable[LaunchTelemetry]) -> dict[str, int]:
    """The least time that each work took in a job."""
    found: dict[str, int] = {}

    def keep(name: str, took: int | None) -> None:
        if took is not None:
            found[name] = min(took, found.get(name, took))

    for launch in launches:
        for point in launch.points:
            keep("memory", point.memory_ns)
            for core in point.cores:
                keep(f"chained {core.cpu}", core.unit_ns)
                keep(f"wide {core.cpu}", core.wide_ns)
    return found


def _usual(jobs: Sequence[_Seen]) -> Usual:
    def median(name: str) -> int | None:
        times = [job[name] for job in jobs if name in job]
        return statistics.median_high(times) if len(times) >= _FEWEST else None

    names = {name for job in jobs for name in job if name.startswith("chained ")}
    cores = []
    for cpu in sorted(int(name.split()[1]) for name in names):
        if (unit_ns := median(f"chained {cpu}")) is not None:
            cores.append(CoreSpeed(cpu, unit_ns, median(f"wide {cpu}")))
    return Usual(tuple(cores), median("memory"))
