"""The run as a state machine, played without processes or devices."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from farm.core.errors import (
    ConnectError,
    DeviceLost,
    DeviceUnfit,
    ExportError,
    FarmError,
    LeaseError,
    RunnerCrashed,
    StoreError,
)
from farm.core.events import DeviceChanged, JobFinished
from farm.core.flow.stimuli import (
    CancelAll,
    DeviceQuarantined,
    FinishCell,
    Interrupt,
    RetryDue,
    RetryLater,
    StartTask,
)
from farm.core.runner import RunnerSpec
from farm.core.spec import DeviceRequest, Resources
from farm.core.tasks import (
    CanaryTask,
    CompareTask,
    ExportTask,
    HostRunTask,
)
from tests.unit.core import builders as b
from tests.unit.core.flow.player import Player


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


def test_a_failed_host_run_is_told_to_who_judges() -> None:
    player = Player(b.run_spec(), b.device("a"))
    player.until_jobs()
    while not (asked := player.tasks_of(HostRunTask)):
        player.end_task(player.open_tasks[0])
    player.end_task(asked[0], ExportError("out of memory"))
    while not (compared := player.tasks_of(CompareTask)):
        for task in list(player.open_tasks):
            player.end_task(task)
        for job in list(player.open_jobs):
            player.end_job(job)
    (task,) = compared
    assert isinstance(task, CompareTask)
    assert (task.host, task.host_error) == (None, "out of memory")


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
        (StoreError("no space"), "errored", "site_failed"),
        (DeviceUnfit("needs 1.9 GiB, has 1.2 GiB"), "skipped", "unfit"),
    ],
)
def test_what_would_fail_again_is_not_retried(error: FarmError, outcome: str, flag: str) -> None:
    player = Player(b.run_spec(), b.device("a"))
    player.end_job(player.until_jobs()[0], error)
    (result,) = player.play().values()
    assert (result.outcome, result.flags) == (outcome, (flag,))
    assert result.reason == error.message


def test_what_ends_a_server_of_the_host_is_no_fault_of_the_device() -> None:
    player = Player(b.run_spec(), b.device("a"))
    player.until_jobs()
    while player.open_jobs:
        (job,) = player.open_jobs
        ended = DeviceLost("the adb server ended", device="a", host_fault="adb server")
        player.retry(player.end_job(job, ended))
    (result,) = player.play().values()
    assert (result.outcome, result.flags) == ("errored", ("site_failed",))


def test_held_device_is_waited_for_and_costs_no_attempt() -> None:
    player = Player(b.run_spec(), b.device("a"))
    for _ in range(5):
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


def test_artifact_without_a_runtime_is_exported_and_not_run() -> None:
    spec = b.run_spec()
    catalog = replace(
        b.catalog(spec), runners={"executorch": RunnerSpec("executorch", backends=("portable",))}
    )
    play = Player(spec, b.device("a"), b.device("b"), catalog=catalog)
    (export,) = play.open_tasks
    play.end_task(export)
    assert not play.open_tasks, "no reference is computed for cells that can't run"
    assert not play.open_jobs
    assert play.flow.finished
    for result in play.flow.results.values():
        assert (result.outcome, result.flags) == ("skipped", ("no_runtime",))
        assert result.reason == (
            "exported, not run: runner executorch has no xnnpack runtime (it has portable)"
        )
        assert result.artifact.sha256 is not None


def test_exports_take_what_the_config_and_the_estimate_say() -> None:
    spec = replace(b.run_spec(), export=Resources(cpus=3, timeout_s=7.0))
    catalog = replace(b.catalog(spec), export_bytes={("m1", "r1"): 123})
    (task,) = Player(spec, b.device("a"), catalog=catalog).open_tasks
    assert isinstance(task, ExportTask)
    assert task.resources == Resources(cpus=3, memory_bytes=123, timeout_s=7.0)
    spec = replace(spec, export=Resources(memory_bytes=5))
    (task,) = Player(spec, b.device("a"), catalog=catalog).open_tasks
    assert isinstance(task, ExportTask)
    assert task.resources.memory_bytes == 5


def test_result_names_the_runtime_that_stood_in() -> None:
    spec = b.run_spec()
    play = Player(spec, b.device("a"))
    for _ in range(2):
        play.end_task(play.open_tasks[0])
    (job,) = play.open_jobs
    play.open_jobs.clear()
    build = replace(b.BUILD, executorch="1.5.1", note="the wheel has no C++ SDK")
    run = replace(b.run_result(), runner=build)
    play.feed(JobFinished(job.attempt_id, "a", "t", run, None))
    while play.open_tasks:
        play.end_task(play.open_tasks[0])
    (result,) = play.flow.results.values()
    assert (result.outcome, result.reason) == ("passed", "the wheel has no C++ SDK")
    assert result.flags == ("other_runtime",)
    assert result.runner.executorch == "1.5.1"


def test_cells_wait_for_a_device_that_is_being_recovered() -> None:
    player = Player(b.run_spec(recipes=("r1", "r2")), b.device("a"))
    first = player.until_jobs()[0]
    player.feed(DeviceChanged(b.device("a").marked("recovering", "power cut")))
    out = player.end_job(first, DeviceLost("power cut", device="a"))
    assert not player.open_jobs, "a job is sent to a device that is being recovered"
    player.feed(RetryDue(next(i for i in out if isinstance(i, RetryLater)).cell_id))
    assert not player.open_jobs
    player.feed(DeviceChanged(b.device("a")))
    assert len(player.open_jobs) == 1
    results = player.play()
    assert {r.outcome for r in results.values()} == {"passed"}
    assert sorted(len(r.attempts) for r in results.values()) == [1, 2]


def test_cells_of_a_device_that_recovery_did_not_bring_back_end() -> None:
    player = Player(b.run_spec(recipes=("r1", "r2")), b.device("a"))
    first = player.until_jobs()[0]
    player.feed(DeviceChanged(b.device("a").marked("recovering", "power cut")))
    out = player.end_job(first, DeviceLost("power cut", device="a"))
    player.feed(DeviceChanged(b.device("a").marked("offline", "power cut (reboot didn't help)")))
    player.feed(RetryDue(next(i for i in out if isinstance(i, RetryLater)).cell_id))
    results = player.play()
    assert player.flow.finished
    assert {(r.outcome, r.flags) for r in results.values()} == {("errored", ("device_missing",))}
    assert player.flow.devices[0].state == "offline"


def test_a_device_in_quarantine_gets_nothing_more_in_this_run() -> None:
    player = Player(b.run_spec(recipes=("r1", "r2")), b.device("a"), b.device("b"))
    job = next(job for job in player.until_jobs() if job.device == "a")
    player.feed(DeviceQuarantined("a", "3 infrastructure failures in a row"))
    out = player.end_job(job, DeviceLost("gone", device="a"))
    player.feed(DeviceChanged(b.device("a")))
    assert all(open_job.device == "b" for open_job in player.open_jobs)
    for item in out:
        if isinstance(item, RetryLater):
            player.feed(RetryDue(item.cell_id))
    results = player.play()
    flags = {(r.device.name, r.outcome, r.flags) for r in results.values()}
    assert flags == {("a", "errored", ("quarantined",)), ("b", "passed", ())}
    reasons = {r.reason for r in results.values() if r.device.name == "a"}
    assert all("3 infrastructure failures in a row" in reason for reason in reasons)


def canary_of(player: Player) -> CanaryTask:
    (task,) = [task for task in player.open_tasks if isinstance(task, CanaryTask)]
    return task


def until_device(player: Player) -> None:
    """End every task but the canary."""
    while others := [t for t in player.open_tasks if not isinstance(t, CanaryTask)]:
        player.end_task(others[0])


def test_no_device_begins_before_the_canary_is_there() -> None:
    player = Player(b.run_spec(canary=True), b.device("phone"))
    until_device(player)
    assert player.open_jobs == []
    player.end_task(canary_of(player))
    (job,) = player.open_jobs
    assert job.canary is not None
    assert job.canary.file in job.own_files
    assert job.canary.request.tokens == b.canary_program().tokens
    assert list(job.checks) == ["canary", "replay"]
    assert job.replay is not None
    assert job.replay.file in job.own_files
    assert job.replay.request.tokens == tuple(range(7))
    assert [one.chunks for one in job.replay.request.passes] == [(1,) * 7, (5, 2)]
    player.end_job(job)
    (compare,) = player.open_tasks
    assert isinstance(compare, CompareTask)
    assert compare.canary == b.canary_program()


def test_devices_work_without_a_canary_that_cannot_be_made() -> None:
    player = Player(b.run_spec(canary=True), b.device("phone"))
    until_device(player)
    player.end_task(canary_of(player), ExportError("no PyTorch"))
    (job,) = player.open_jobs
    assert list(job.checks) == ["replay"]


def test_without_canaries_a_job_checks_no_kernel() -> None:
    player = Player(b.run_spec(canary=False), b.device("phone"))
    until_device(player)
    (job,) = player.open_jobs
    assert job.checks == {}
    assert [file.path for file in job.own_files] == ["model.pte"]
