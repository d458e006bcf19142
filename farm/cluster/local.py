"""The in-process pool: host tasks on a few threads of this process. The twin of cluster.ray."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from farm.cluster import tasks
from farm.core.artifact import StageEvent
from farm.core.errors import Interrupted
from farm.core.tasks import HostTask, HostTaskResult
from farm.protocols import StageCallback


class LocalPool:
    """Runs host tasks on this host, a bounded number at a time.

    Args:
        home: FARM_HOME of this host.
        workers: Tasks that run at once.
    """

    def __init__(self, home: Path, workers: int) -> None:
        self._home = home
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="farm-task")
        self._stops: set[threading.Event] = set()

    async def run(self, task: HostTask, on_stage: StageCallback) -> HostTaskResult:
        """See protocols.TaskPool."""
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        self._stops.add(stop)

        def emit(event: StageEvent) -> None:
            loop.call_soon_threadsafe(on_stage, event)

        def work() -> HostTaskResult:
            if stop.is_set():  # cancelled while it waited for a thread
                raise Interrupted(f"{task.task_id} was cancelled")
            return tasks.run_task(task, self._home, emit, stop)

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
