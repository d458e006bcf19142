"""A pool and a site in memory: they answer as told, at once. For the controller's unit tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from farm.core.artifact import ObjectRef, StageEvent
from farm.core.device import Device, DeviceEntry
from farm.core.errors import FarmError, Interrupted, SiteLost
from farm.core.events import (
    Attached,
    Handshake,
    JobFinished,
    JobStarted,
    Numbered,
    Polled,
    SiteEvent,
)
from farm.core.runtime import DeviceJob, DeviceRunResult
from farm.core.tasks import (
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    PoolHosts,
    ReferenceTask,
    TokensTask,
)
from farm.protocols import PROBE_LIMIT_S, ByteProgress, StageCallback
from tests.unit.core import builders as b

AT = "2026-01-01T00:00:00.000Z"


class FakePool:
    """Ends every task with a ready-made result; `hang` names tasks that never end."""

    def __init__(self, *, hang: frozenset[str] = frozenset()) -> None:
        self.hang = hang
        self.started: list[str] = []
        self.cancelled: list[str] = []

    def hosts(self) -> PoolHosts:
        return PoolHosts()

    async def run(
        self, task: HostTask, on_stage: StageCallback, but: frozenset[str] = frozenset()
    ) -> HostTaskResult:
        self.started.append(task.task_id)
        on_stage(StageEvent("work", 1, 1, 0.0))
        if task.task_id in self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(task.task_id)
                raise
        results: dict[type[HostTask], Callable[[], HostTaskResult]] = {
            ExportTask: b.export_result,
            TokensTask: b.tokenized,
            ReferenceTask: b.reference_result,
            HostRunTask: b.host_result,
            CompareTask: b.judgement,
        }
        return results[type(task)]()

    async def close(self) -> None:
        return None


class FakeSite:
    """Ends jobs by `answer`, which returns a result or an error; None leaves the job running."""

    def __init__(self, answer: Callable[[DeviceJob], DeviceRunResult | FarmError | None]) -> None:
        self.name = ""
        self.answer = answer
        self.jobs: list[DeviceJob] = []
        self.cancelled: list[str] = []
        self.fail_polls = 0
        self.acknowledged = 0
        self.boot_id = "boot-1"
        self.detached: list[str] = []
        self.others: tuple[tuple[str, str], ...] = ()
        self._events: list[Numbered] = []
        self._news = asyncio.Event()

    async def handshake(self) -> Handshake:
        return Handshake(1, "tree", "3.11")

    async def inventory(
        self,
        entries: Sequence[DeviceEntry],
        *,
        adb_auto: bool,
        limit_s: float = PROBE_LIMIT_S,
        recover: bool = False,
    ) -> list[Device]:
        return [b.device(entry.name) for entry in entries]

    def restart(self, boot_id: str, *, keep: Sequence[Numbered] = ()) -> None:
        """The agent ends; the next one has no job, and the events that the old one kept."""
        self.boot_id, self.jobs = boot_id, []
        self._events = [Numbered(seq, item.event) for seq, item in enumerate(keep, 1)]
        self._news.set()

    async def attach(self, run_id: str, epoch: int) -> Attached:
        ended = [item.event for item in self._events if isinstance(item.event, JobFinished)]
        here = [*(job.attempt_id for job in self.jobs), *(event.attempt_id for event in ended)]
        return Attached(self.boot_id, tuple(here), self.others)

    async def submit(self, jobs: Sequence[DeviceJob], boot_id: str = "") -> None:
        if boot_id != self.boot_id:
            raise SiteLost("the agent was started anew")
        for job in jobs:
            self.jobs.append(job)
            self._say(JobStarted(job.attempt_id, job.device, AT))
            answer = self.answer(job)
            if isinstance(answer, FarmError):
                self._finish(job, None, answer)
            elif answer is not None:
                self._finish(job, answer, None)

    async def cancel(self, run_id: str, job_ids: Sequence[str]) -> None:
        self.cancelled += job_ids
        for job in self.jobs:
            if job.job_id in job_ids:
                self._finish(job, None, Interrupted("cancelled"))

    async def poll(self, run_id: str, after_seq: int, linger_s: float, boot_id: str = "") -> Polled:
        if self.fail_polls:
            self.fail_polls -= 1
            raise FarmError("the agent does not answer")
        if boot_id != self.boot_id:
            return Polled(self.boot_id, ())
        self.acknowledged = after_seq
        while not (found := [item for item in self._events if item.seq > after_seq]):
            self._news.clear()
            await self._news.wait()
            if boot_id != self.boot_id:
                return Polled(self.boot_id, ())
        return Polled(self.boot_id, tuple(found))

    async def detach(self, run_id: str) -> None:
        self.detached.append(run_id)

    async def ensure(
        self, refs: Sequence[ObjectRef], source: str, progress: ByteProgress | None = None
    ) -> tuple[str, ...]:
        return ()

    async def collect(self, refs: Sequence[ObjectRef]) -> tuple[str, ...]:
        return ()

    async def close(self) -> None:
        return None

    def _finish(
        self, job: DeviceJob, result: DeviceRunResult | None, error: FarmError | None
    ) -> None:
        self._say(JobFinished(job.attempt_id, job.device, AT, result, error))

    def _say(self, event: SiteEvent) -> None:
        self._events.append(Numbered(len(self._events) + 1, event))
        self._news.set()
