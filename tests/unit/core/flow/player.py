"""Plays the outside world of a flow, one answer after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from farm.core.device import Device
from farm.core.errors import FarmError
from farm.core.events import JobFinished
from farm.core.flow.flow import RunFlow
from farm.core.flow.results import Results
from farm.core.flow.stimuli import (
    Instruction,
    RetryDue,
    RetryLater,
    Started,
    StartTask,
    Stimulus,
    SubmitJob,
    TaskEnded,
)
from farm.core.plan import Catalog
from farm.core.result import CellResult
from farm.core.runtime import BaselineArm, DeviceJob
from farm.core.spec import RunSpec
from farm.core.tasks import (
    CanaryTask,
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    PoolHosts,
    ReferenceTask,
    TokensTask,
)
from tests.unit.core import builders as b

AT = "2026-01-01T00:00:00Z"


class Player:
    """Plays the outside world: tasks and jobs succeed unless a test says otherwise."""

    def __init__(
        self,
        spec: RunSpec,
        *devices: Device,
        catalog: Catalog | None = None,
        epoch: int = 1,
        finished: Mapping[str, CellResult] | None = None,
        baselines: Mapping[str, BaselineArm] | None = None,
        past: Mapping[str, float] | None = None,
        hosts: PoolHosts | None = None,
    ) -> None:
        known, plan = catalog or b.catalog(spec), b.plan(spec, *devices)
        self.flow = RunFlow(
            spec,
            plan,
            known,
            run_id="run",
            epoch=epoch,
            finished=finished,
            baselines=baselines,
            past=past,
            hosts=hosts,
        )
        self.log: list[Instruction] = []
        self.open_tasks: list[HostTask] = []
        self.open_jobs: list[DeviceJob] = []
        self.feed(Started())

    def feed(self, stimulus: Stimulus) -> list[Instruction]:
        out = self.flow.handle(stimulus)
        self.flow.validate()
        self.log += out
        self.open_tasks += [i.task for i in out if isinstance(i, StartTask)]
        self.open_jobs += [i.job for i in out if isinstance(i, SubmitJob)]
        return out

    def end_task(self, task: HostTask, error: FarmError | None = None) -> None:
        self.open_tasks.remove(task)
        results: dict[type[HostTask], Callable[[], HostTaskResult]] = {
            ExportTask: b.export_result,
            TokensTask: b.tokenized,
            ReferenceTask: b.reference_result,
            HostRunTask: b.host_result,
            CompareTask: b.judgement,
            CanaryTask: b.canary_program,
        }
        result = None if error else results[type(task)]()
        self.feed(TaskEnded(task.task_id, result, error))

    def end_job(self, job: DeviceJob, error: FarmError | None = None) -> list[Instruction]:
        self.open_jobs.remove(job)
        result = None if error else b.run_result()
        return self.feed(JobFinished(job.attempt_id, job.device, AT, result, error))

    def play(self) -> Results:
        """Let everything that is open succeed, until nothing is."""
        while self.open_tasks or self.open_jobs:
            for task in list(self.open_tasks):
                self.end_task(task)
            for job in list(self.open_jobs):
                self.end_job(job)
        return self.flow.results

    def tasks_of(self, kind: type) -> list[HostTask]:
        return [task for task in self.open_tasks if isinstance(task, kind)]

    def until_jobs(self) -> list[DeviceJob]:
        while not self.open_jobs:
            for task in list(self.open_tasks):
                self.end_task(task)
        return self.open_jobs

    def retry(self, out: list[Instruction]) -> None:
        """Let the pauses that were asked for be over."""
        for item in out:
            if isinstance(item, RetryLater):
                self.feed(RetryDue(item.cell_id))

    def job_on(self, device: str) -> DeviceJob:
        """The open job of a device."""
        (job,) = [job for job in self.open_jobs if job.device == device]
        return job
