"""The run as a state machine, played without processes or devices."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from farm.core.device import Device
from farm.core.errors import (
    ConnectError,
    DeviceLost,
    DeviceUnfit,
    ExportError,
    FarmError,
    LeaseError,
    RunnerCrashed,
)
from farm.core.events import JobFinished
from farm.core.flow import LEASE_TRIES, RunFlow
from farm.core.result import CellResult
from farm.core.runtime import DeviceJob
from farm.core.spec import DeviceRequest, RunSpec
from farm.core.stimuli import (
    CancelAll,
    FinishCell,
    Instruction,
    Interrupt,
    RetryDue,
    RetryLater,
    Started,
    StartTask,
    Stimulus,
    SubmitJob,
    TaskEnded,
)
from farm.core.tasks import (
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    ReferenceTask,
)
from tests.unit.core import builders as b


class Player:
    """Plays the outside world: tasks and jobs succeed unless a test says otherwise."""

    def __init__(self, spec: RunSpec, *devices: Device) -> None:
        self.flow = RunFlow(spec, b.plan(spec, *devices), b.catalog(spec), run_id="run", epoch=1)
        self.log: list[Instruction] = []
        self.open_tasks: list[HostTask] = []
        self.open_jobs: list[DeviceJob] = []
        self.feed(Started())

    def feed(self, stimulus: Stimulus) -> list[Instruction]:
        out = self.flow.handle(stimulus)
        self.log += out
        self.open_tasks += [i.task for i in out if isinstance(i, StartTask)]
        self.open_jobs += [i.job for i in out if isinstance(i, SubmitJob)]
        return out

    def end_task(self, task: HostTask, error: FarmError | None = None) -> None:
        self.open_tasks.remove(task)
        results: dict[type[HostTask], Callable[[], HostTaskResult]] = {
            ExportTask: b.export_result,
            ReferenceTask: b.reference_result,
            HostRunTask: b.host_result,
            CompareTask: b.judgement,
        }
        result = None if error else results[type(task)]()
        self.feed(TaskEnded(task.task_id, result, error))

    def end_job(self, job: DeviceJob, error: FarmError | None = None) -> list[Instruction]:
        self.open_jobs.remove(job)
        result = None if error else b.run_result()
        return self.feed(
            JobFinished(job.job_id, job.attempt, job.device, "2026-01-01T00:00:00Z", result, error)
        )

    def play(self) -> dict[str, CellResult]:
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


def test_every_cell_gets_one_result_and_one_export_serves_all() -> None:
    player = Player(b.run_spec(), b.device("a"), b.device("b"))
    results = player.play()
    assert player.flow.finished
    assert sorted(r.device.name for r in results.values()) == ["a", "b"]
    assert all(r.outcome == "passed" and r.flags == () for r in results.values())
    started = [i.task for i in player.log if isinstance(i, StartTask)]
    assert sum(isinstance(task, ExportTask) for task in started) == 1
    assert sum(isinstance(task, HostRunTask) for task in started) == 1


def test_host_is_measured_alone() -> None:
    player = Player(b.run_spec(recipes=("r1", "r2")), b.device("local", transport="local"))
    while not player.flow.finished:
        if player.open_jobs:
            assert not player.open_tasks, "a host task runs while this host is measured"
            player.end_job(player.open_jobs[0])
        else:
            player.end_task(player.open_tasks[0])
            assert not (player.open_jobs and player.open_tasks)


def test_failed_export_ends_its_cells_only() -> None:
    player = Player(b.run_spec(recipes=("bad", "good")), b.device("a"))
    bad = next(t for t in player.open_tasks if "bad" in t.task_id)
    player.end_task(bad, ExportError("no such operator", stage="lower"))
    results = player.play()
    outcomes = {r.recipe: (r.outcome, r.flags) for r in results.values()}
    assert outcomes == {"bad": ("errored", ("export_failed",)), "good": ("passed", ())}


def test_lost_device_is_retried_on_an_equal_one() -> None:
    pool = (DeviceRequest("", any=1, pool="phones"),)
    player = Player(b.run_spec(requests=pool), b.device("a"), b.device("b"))
    job = player.until_jobs()[0]
    out = player.end_job(job, DeviceLost("power cut", device=job.device))
    retry = next(i for i in out if isinstance(i, RetryLater))
    player.feed(RetryDue(retry.cell_id))
    assert player.open_jobs[0].device != job.device
    assert player.open_jobs[0].attempt == 2
    (result,) = player.play().values()
    assert result.outcome == "passed"
    assert result.flags == ("retried",)
    assert [a.outcome for a in result.attempts] == ["errored", "ran"]


def test_lone_device_is_tried_three_times_then_its_other_cells_are_missing() -> None:
    player = Player(b.run_spec(recipes=("r1", "r2")), b.device("a"), b.device("b"))
    player.until_jobs()
    tries = 0
    while any(job.device == "a" for job in player.open_jobs):
        job = next(job for job in player.open_jobs if job.device == "a")
        tries += 1
        out = player.end_job(job, ConnectError("gone", device="a"))
        for due in [i for i in out if isinstance(i, RetryLater)]:
            player.feed(RetryDue(due.cell_id))
        for task in list(player.open_tasks):
            player.end_task(task)
    results = player.play()
    on_a = [r for r in results.values() if r.device.name == "a"]
    assert {r.outcome for r in on_a} == {"errored"}
    assert 3 <= tries <= 6
    assert all(r.outcome == "passed" for r in results.values() if r.device.name == "b")


@pytest.mark.parametrize(
    ("error", "outcome", "flag"),
    [
        (RunnerCrashed("signal 11", signal=11), "errored", "device_failed"),
        (DeviceUnfit("needs 1.9 GiB, has 1.2 GiB"), "skipped", "unfit"),
    ],
)
def test_what_would_fail_again_is_not_retried(error: FarmError, outcome: str, flag: str) -> None:
    player = Player(b.run_spec(), b.device("a"))
    player.end_job(player.until_jobs()[0], error)
    (result,) = player.play().values()
    assert (result.outcome, result.flags) == (outcome, (flag,))
    assert result.reason == error.message


def test_held_device_is_waited_for_and_costs_no_attempt() -> None:
    player = Player(b.run_spec(), b.device("a"))
    for _ in range(LEASE_TRIES - 1):
        out = player.end_job(player.until_jobs()[0], LeaseError("held by ann", device="a"))
        (due,) = [i for i in out if isinstance(i, RetryLater)]
        player.feed(RetryDue(due.cell_id))
    (result,) = player.play().values()
    assert result.outcome == "passed"
    assert "retried" not in result.flags


def test_interrupt_gives_every_open_cell_a_result() -> None:
    player = Player(b.run_spec(), b.device("a"), b.device("b"))
    jobs = player.until_jobs()
    player.end_job(jobs[0])
    while player.open_tasks:
        player.end_task(player.open_tasks[0])
    out = player.feed(Interrupt())
    assert any(isinstance(i, CancelAll) for i in out)
    assert player.flow.finished
    outcomes = sorted(r.outcome for r in player.flow.results.values())
    assert outcomes == ["passed", "skipped"]
    assert not [i for i in player.feed(Interrupt()) if isinstance(i, FinishCell)]


def test_missing_device_is_reported_not_forgotten() -> None:
    player = Player(b.run_spec(), b.device("a"), b.device("gone", alive=False))
    results = player.play()
    missing = next(r for r in results.values() if r.device.name == "gone")
    assert (missing.outcome, missing.flags) == ("skipped", ("device_missing",))
    assert "no answer" in missing.reason


def test_stimuli_and_instructions_cross_processes() -> None:
    player = Player(b.run_spec(), b.device("a"))
    player.play()
    assert pickle.loads(pickle.dumps(player.log)) == player.log
