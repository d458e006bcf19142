"""The in-process pool: host tasks on a few threads of this process. The twin of cluster.ray."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from farm.core.artifact import StageEvent
from farm.core.errors import Interrupted
from farm.core.spec import Resources
from farm.core.tasks import ExportTask, HostTask, HostTaskResult, PoolHosts, ReferenceTask
from farm.protocols import StageCallback
from farm.tasks import perform


class LocalPool:
    """Runs host tasks on this host, a bounded number at a time.

    Args:
        home: FARM_HOME of this host.
        workers: Tasks that run at once.
        cpus_per_export: CPUs of an export that asks for none.
        memory_bytes: Memory that exports may set aside together.
    """

    def __init__(
        self, home: Path, workers: int, *, cpus_per_export: int, memory_bytes: int
    ) -> None:
        self._home = home
        self._free = Resources(workers, memory_bytes)
        self._cpus_per_export, self._all = cpus_per_export, self._free
        self._freed = asyncio.Condition()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="farm-task")
        self._stops: set[threading.Event] = set()

    def hosts(self) -> PoolHosts:
        """See protocols.TaskPool."""
        return PoolHosts()

    async def run(
        self, task: HostTask, on_stage: StageCallback, but: frozenset[str] = frozenset()
    ) -> HostTaskResult:
        """See protocols.TaskPool."""
        assert not but, "there is no other host"
        if not isinstance(task, ExportTask | ReferenceTask):
            return await self._run(task, on_stage)
        asked = task.resources
        granted = replace(
            asked,
            cpus=min(asked.cpus or self._cpus_per_export, self._all.cpus),
            memory_bytes=min(asked.memory_bytes, self._all.memory_bytes),
        )
        async with self._set_aside(granted, on_stage):
            return await self._run(replace(task, resources=granted), on_stage)

    @contextlib.asynccontextmanager
    async def _set_aside(self, wanted: Resources, on_stage: StageCallback) -> AsyncIterator[None]:
        """Wait until CPUs and memory are free, and hold them."""

        def fits() -> bool:
            free = self._free
            return wanted.cpus <= free.cpus and wanted.memory_bytes <= free.memory_bytes

        if not fits():
            on_stage(StageEvent("waiting", 0, 0, 0.0, "for CPUs and memory of this host"))
        async with self._freed:
            await self._freed.wait_for(fits)
            self._take(wanted, 1)
        try:
            yield
        finally:
            self._take(wanted, -1)
            async with self._freed:
                self._freed.notify_all()

    def _take(self, what: Resources, sign: int) -> None:
        self._free = replace(
            self._free,
            cpus=self._free.cpus - sign * what.cpus,
            memory_bytes=self._free.memory_bytes - sign * what.memory_bytes,
        )

    async def _run(self, task: HostTask, on_stage: StageCallback) -> HostTaskResult:
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        self._stops.add(stop)

        def emit(event: StageEvent) -> None:
            loop.call_soon_threadsafe(on_stage, event)

        def work() -> HostTaskResult:
            if stop.is_set():  # cancelled while it waited for a thread
                raise Interrupted(f"{task.task_id} was cancelled")
            return perform.run_task(task, self._home, emit, stop)

        try:
            return await loop.run_in_executor(self._threads, work)
        finally:
            # Cancelling the await stops nothing by itself: the thread looks at this flag and
            # ends the task's processes.
            stop.set()
            self._stops.discard(stop)

    async def close(self) -> None:
        """See protocols.TaskPool."""
        for stop in list(self._stops):
            stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
