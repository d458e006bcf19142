"""`farm bench`: one .pte on one device. No config, no export, no PyTorch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm import codec, paths
from farm.cluster import start as cluster_start
from farm.cluster.start import Runtime
from farm.commands.jobs import job_run_id, perform
from farm.config.load import load_inventory
from farm.core.device import Device
from farm.core.errors import ConfigError, ConnectError, FarmError, UnknownName
from farm.core.names import meant
from farm.core.result import EnergyReport, PerformanceReport
from farm.core.rules.classes import device_class
from farm.core.rules.launches import launch_policy, measures
from farm.core.runner import OWN, DeployFile
from farm.core.runtime import DeviceJob, DeviceRunResult, LaunchRequest
from farm.core.spec import Workload
from farm.core.view import ViewEvent
from farm.judge.conditions import conditions
from farm.judge.environment import environment_guards
from farm.judge.performance import energy_report, peak_rss_by_launch, performance_reports
from farm.planning.devices import find_devices
from farm.store.objects import ContentStore

Emit = Callable[[ViewEvent], None]

#: Half width that intervals shall get below where nothing else is asked for.
DEFAULT_PRECISION = 0.02


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure, and where."""

    pte: Path
    #: External weights (.ptd); None when they are inside the program.
    data: Path | None
    device: str
    inventory: Path | None
    #: What each launch times: every prompt length, reply length and depth, in tokens.
    workload: Workload
    #: Every one is measured, one after the other; 0 lets the runner choose.
    threads: tuple[int, ...] = (0,)
    #: Address of the cluster whose devices are meant too; `none`: those of this host.
    cluster: str = "none"


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What was measured."""

    device: Device
    performance: tuple[PerformanceReport, ...]
    peak_rss_bytes: int | None
    energy: EnergyReport
    #: What telemetry read, and why guards fired.
    conditions: dict[str, str]
    #: Why there were no more launches, for each number of threads.
    stops: tuple[str, ...] = ()


def to_data(result: BenchResult) -> dict[str, Any]:
    """Return the result as plain data, in the report's terms."""
    return {
        "device": codec.to_data(result.device),
        "performance": [codec.to_data(item) for item in result.performance],
        "launches": list(result.stops),
        "memory": {"peak_rss_bytes": result.peak_rss_bytes},
        "energy": codec.to_data(result.energy),
        "conditions": result.conditions,
    }


def bench(request: BenchRequest, home: Path, emit: Emit) -> BenchResult:
    """Measure a .pte.

    Raises:
        ConfigError: No such file, inventory or device.
        FarmError: Why the device gave no result.
    """
    if not measures(request.workload):
        raise ConfigError("nothing to measure: give a prompt length (-p) or a reply length (-n)")
    for path in (request.pte, request.data):
        if path is not None and not path.is_file():
            raise ConfigError(f"{path}: there is no such file; `farm export CONFIG` makes one")
    cluster_start.launch(request.cluster)
    with ContentStore(paths.store_root(home)).in_use(f"farm bench {request.pte.name}"):
        return asyncio.run(_bench(request, home, emit))


async def _bench(request: BenchRequest, home: Path, emit: Emit) -> BenchResult:
    async with cluster_start.started(request.cluster, home) as runtime:
        device = await _find_device(runtime, request)
        store = ContentStore(paths.store_root(home))
        artifact = [DeployFile(store.put_file(request.pte, "model.pte"), "model.pte")]
        if request.data is not None:
            artifact.append(DeployFile(store.put_file(request.data, "model.ptd"), "model.ptd"))
        run_id = job_run_id("bench")
        jobs = [
            _job(request, device, tuple(artifact), threads, run_id)
            for threads in dict.fromkeys(request.threads)
        ]
        places = {device.name: device.entry.site}
        ended = await perform(jobs, places, runtime.sites, str(home), emit)
    results = []
    for event in ended:
        if event.result is None:
            raise event.error or FarmError("the job ended without a result")
        results.append(event.result)
    peaks = [peak for run in results for peak in peak_rss_by_launch(run)]
    judged = [_judged(request, device, run) for run in results]
    several = EnergyReport(None, reason="several numbers of threads: measure one for its energy")
    return BenchResult(
        device=device,
        performance=tuple(row for rows, _conditions in judged for row in rows),
        peak_rss_bytes=max(peaks, default=None),
        energy=energy_report(results[0]) if len(results) == 1 else several,
        # Of several numbers of threads the last one's, as with a device looked at afterwards.
        conditions=judged[-1][1],
        stops=tuple(run.stop.detail for run in results if run.stop is not None),
    )


def _job(
    request: BenchRequest,
    device: Device,
    artifact: tuple[DeployFile, ...],
    threads: int,
    run_id: str,
) -> DeviceJob:
    # Without token ids the runner takes some that the model's own vocabulary has.
    launch = LaunchRequest(threads=threads, measures=measures(request.workload))
    return DeviceJob(
        job_id=f"bench:{request.pte.name}:t{threads}",
        attempt=1,
        epoch=1,
        run_id=run_id,
        cell_id=f"bench:{request.pte.name}:{device.name}",
        device=device.name,
        runner=OWN,
        artifact=artifact,
        launches=(),
        policy=launch_policy(request.workload, (launch,), regress=DEFAULT_PRECISION),
    )


def _judged(
    request: BenchRequest, device: Device, run: DeviceRunResult
) -> tuple[tuple[PerformanceReport, ...], dict[str, str]]:
    """Rows of one number of threads, and the conditions they were measured in."""
    assert device.facts is not None, "checked by _find_device"
    guards = environment_guards(
        device.facts, device.entry, device_class(device.facts, device.entry.labels), run
    )
    rows = performance_reports(run, measures(request.workload), (), guards)
    return tuple(rows), conditions(run, device, guards)


async def _find_device(runtime: Runtime, request: BenchRequest) -> Device:
    devices = await find_devices(runtime.sites, load_inventory(request.inventory), elsewhere=True)
    found = next((device for device in devices if device.name == request.device), None)
    if found is None:
        names = tuple(device.name for device in devices)
        raise UnknownName(
            f"no device {request.device!r}; the inventory has {', '.join(names) or 'none'}"
            f"{meant(request.device, names)}",
            known=names,
        )
    if found.facts is None:
        raise ConnectError(f"{found.name}: {found.reason or found.state}", device=found.name)
    return found
