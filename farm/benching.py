"""`farm bench`: one .pte on one device. No config, no export, no PyTorch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm import codec
from farm import home as layout
from farm.config import load_inventory
from farm.core.device import Device
from farm.core.errors import ConfigError, ConnectError, FarmError, UnknownName
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.launches import measures
from farm.core.result import PerformanceReport
from farm.core.runtime import DeployFile, DeviceJob, DeviceRunResult, LaunchRequest
from farm.core.spec import Workload
from farm.core.view import ViewEvent
from farm.judge.guards import device_class, environment_guards
from farm.judge.performance import peak_rss_by_launch, performance_reports
from farm.prepare import with_local
from farm.site.agent import SiteAgent
from farm.site.store import ContentStore

Emit = Callable[[ViewEvent], None]

#: Ids of the timed tokens: what they are doesn't change the work, and every vocabulary has them.
_TOKENS = tuple(range(3, 131))


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure, and where."""

    pte: Path
    device: str
    inventory: Path | None
    prefill: int
    decode: int
    #: 0 lets the device's session choose.
    threads: int
    launches: int


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What was measured."""

    device: Device
    performance: tuple[PerformanceReport, ...]
    peak_rss_bytes: int | None


def to_data(result: BenchResult) -> dict[str, Any]:
    """Return the result as plain data, in the report's terms."""
    return {
        "device": codec.to_data(result.device),
        "performance": [codec.to_data(item) for item in result.performance],
        "memory": {"peak_rss_bytes": result.peak_rss_bytes},
    }


def bench(request: BenchRequest, home: Path, emit: Emit) -> BenchResult:
    """Measure a .pte.

    Raises:
        ConfigError: No such file, inventory or device.
        FarmError: Why the device gave no result.
    """
    if not request.pte.is_file():
        raise ConfigError(f"{request.pte}: there is no such file; `farm export CONFIG` makes one")
    return asyncio.run(_bench(request, home, emit))


async def _bench(request: BenchRequest, home: Path, emit: Emit) -> BenchResult:
    agent = SiteAgent(home)
    try:
        device = await _find_device(agent, request)
        model = ContentStore(layout.store_root(home)).put_file(request.pte, "model.pte")
        workload = Workload(
            prefill=(request.prefill,) if request.prefill else (),
            decode=(request.decode,) if request.decode else (),
            launches=request.launches,
        )
        job = DeviceJob(
            job_id=f"bench:{request.pte.name}",
            attempt=1,
            epoch=int(time.time()),
            run_id="bench",
            cell_id=f"bench:{request.pte.name}:{device.name}",
            device=device.name,
            runner="executorch",
            artifact=(DeployFile(model, "model.pte"),),
            launches=tuple(
                LaunchRequest(threads=request.threads, tokens=_TOKENS, measures=measures(workload))
                for _ in range(request.launches)
            ),
        )
        await agent.submit([job])
        run = await _result(agent, emit)
    finally:
        await agent.close()
    assert device.facts is not None, "checked by _find_device"
    guards = environment_guards(
        device.facts, device.entry.thermal, device_class(device.facts, device.entry.labels)
    )
    return BenchResult(
        device=device,
        performance=tuple(performance_reports(run, measures(workload), (), guards)),
        peak_rss_bytes=max(peak_rss_by_launch(run), default=None),
    )


async def _find_device(agent: SiteAgent, request: BenchRequest) -> Device:
    inventory = load_inventory(request.inventory)
    devices = await agent.inventory(with_local(inventory), adb_auto=inventory.adb_auto)
    found = next((device for device in devices if device.name == request.device), None)
    if found is None:
        names = tuple(device.name for device in devices)
        raise UnknownName(
            f"no device {request.device!r}; the inventory has {', '.join(names) or 'none'}",
            known=names,
        )
    if found.facts is None:
        raise ConnectError(f"{found.name}: {found.reason or found.state}", device=found.name)
    return found


async def _result(agent: SiteAgent, emit: Emit) -> DeviceRunResult:
    after = 0
    while True:
        for item in await agent.poll(after, 2.0):
            after = item.seq
            event = item.event
            if isinstance(event, JobStarted | JobProgress | JobFinished):
                emit(event)
            if isinstance(event, JobFinished):
                if event.result is None:
                    raise event.error or FarmError("the job ended without a result")
                return event.result
