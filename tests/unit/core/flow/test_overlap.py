"""What goes on side by side in a run, what goes first, and cells that end early."""

from __future__ import annotations

from dataclasses import replace

from farm.core.errors import ExportError, Interrupted, LeaseError
from farm.core.events import DeviceChanged
from farm.core.flow.cellstate import State
from farm.core.flow.stimuli import CancelCell, CancelJob, RetryLater, StartTask, TaskEnded
from farm.core.lease import HOLD_RUN
from farm.core.runtime import DeviceJob
from farm.core.spec import DeviceRequest, Limits
from farm.core.tasks import (
    CompareTask,
    ExportTask,
    HostRunTask,
    PoolHosts,
    ReferenceTask,
    TokensTask,
)
from tests.unit.core import builders as b
from tests.unit.core.flow.player import Player


def states(player: Player) -> list[State]:
    return [one.state for one in player.flow.cells]


def begun(player: Player) -> DeviceJob:
    """The job that begins when its program and token ids are there."""
    for kind in (ExportTask, TokensTask):
        (task,) = player.tasks_of(kind)
        player.end_task(task)
    (job,) = player.open_jobs
    return job


def test_only_the_host_that_is_measured_is_left_alone() -> None:
    spare = PoolHosts(frozenset({"rack", "spare"}), {"": "rack"})
    local, phone = b.device("local", transport="local"), b.device("phone")
    player = Player(b.run_spec(recipes=("r1", "r2")), local, phone, hosts=spare)
    assert {i.but for i in player.log if isinstance(i, StartTask)} == {frozenset({"rack"})}
    player.until_jobs()
    assert {job.device for job in player.open_jobs} == {"local", "phone"}
    assert player.open_tasks, "what judges them runs elsewhere meanwhile"
    assert {result.outcome for result in player.play().values()} == {"passed"}


def test_a_device_that_is_a_host_of_no_pool_stops_no_task() -> None:
    elsewhere = PoolHosts(frozenset({"node"}), {})
    player = Player(b.run_spec(), b.device("far", transport="local"), hosts=elsewhere)
    player.until_jobs()
    assert {task for task in player.open_tasks if isinstance(task, ReferenceTask | HostRunTask)}
    assert {i.but for i in player.log if isinstance(i, StartTask)} == {frozenset()}


def test_a_device_begins_with_the_token_ids_and_is_judged_with_the_reference() -> None:
    player = Player(b.run_spec(), b.device("a"))
    (export,) = player.open_tasks
    player.end_task(export)
    tokens, reference = player.open_tasks
    assert isinstance(tokens, TokensTask)
    player.end_task(tokens)
    (job,) = player.open_jobs
    player.end_job(job)
    assert states(player) == [State.WAITING_HOST]
    (host,) = [task for task in player.open_tasks if task is not reference]
    player.end_task(host)
    assert states(player) == [State.WAITING_HOST]
    player.end_task(reference)
    assert states(player) == [State.COMPARING]


def test_a_reference_that_fails_ends_its_cells_and_their_jobs() -> None:
    player = Player(b.run_spec(), b.device("a"))
    job = begun(player)
    (reference,) = player.tasks_of(ReferenceTask)
    out = player.feed(TaskEnded(reference.task_id, None, ExportError("no weights")))
    assert CancelJob(job.attempt_id, "") in out
    (result,) = player.flow.results.values()
    assert (result.outcome, result.flags) == ("errored", ("reference_failed",))
    player.end_job(job, Interrupted("cancelled"))
    assert player.flow.dropped == {}
    assert not player.flow.roster.at_work


def test_a_reference_of_other_ids_than_the_device_had_judges_nothing() -> None:
    player = Player(b.run_spec(), b.device("a"))
    player.end_job(begun(player))
    (reference,) = player.tasks_of(ReferenceTask)
    other = replace(b.reference_result(), tokens=(7,) * 256)
    player.feed(TaskEnded(reference.task_id, other, None))
    (result,) = player.play().values()
    assert (result.outcome, result.flags) == ("errored", ("reference_failed",))
    assert "other token ids than the device was given" in result.reason


def test_a_cancelled_cell_ends_alone_and_its_device_goes_on_when_its_job_has_ended() -> None:
    player = Player(b.run_spec(recipes=("r1", "r2")), b.device("a"))
    (job,) = player.until_jobs()
    out = player.feed(CancelCell(job.cell_id, "ann@desk"))
    assert CancelJob(job.attempt_id, "") in out
    cancelled = player.flow.results[job.cell_id]
    assert (cancelled.outcome, cancelled.flags) == ("skipped", ("cancelled",))
    assert cancelled.reason == "cancelled by ann@desk"
    assert player.open_jobs == [job], "the device is busy until its job has ended"
    player.end_job(job, Interrupted("cancelled"))
    assert player.feed(CancelCell(job.cell_id, "ann@desk")) == []
    assert sorted(r.outcome for r in player.play().values()) == ["passed", "skipped"]


def test_a_cell_that_no_device_is_left_for_does_not_wait_for_its_export() -> None:
    player = Player(b.run_spec(), b.device("a"), b.device("b"))
    player.feed(DeviceChanged(b.device("a").marked("offline", "power cut")))
    assert player.tasks_of(ExportTask), "it is not there yet"
    (gone,) = player.flow.results.values()
    assert (gone.device.name, gone.flags) == ("a", ("device_missing",))
    assert "a stopped answering during this run (power cut)" in gone.reason


def test_exports_begin_in_the_order_in_which_devices_wait_least() -> None:
    past = {
        "export:m1/r1": 100.0, "export:m1/r2": 10.0, "export:m1/r3": 50.0,
        "job:m1/r1:executorch:auto:a@a": 200.0, "job:m1/r2:executorch:auto:a@a": 200.0,
        "job:m1/r3:executorch:auto:a@a": 5.0,
    }  # fmt: skip
    player = Player(b.run_spec(recipes=("r3", "r1", "r2")), b.device("a"), past=past)
    assert [task.task_id for task in player.open_tasks] == [
        "export:m1/r2", "export:m1/r1", "export:m1/r3",
    ]  # fmt: skip


THEIRS = LeaseError("leased by ci@rack for run r7", device="a", run="r7")
HELD = LeaseError("held by ann@desk", device="a", run=HOLD_RUN)


def refused(player: Player, error: LeaseError, for_s: float) -> float:
    """Let device `a` be refused for so long; returns how long it was."""
    waited_s = 0.0
    while waited_s < for_s:
        out = player.end_job(player.job_on("a"), error)
        (pause,) = [item for item in out if isinstance(item, RetryLater)]
        assert not [job for job in player.open_jobs if job.device == "a"], "two cells ask"
        waited_s += pause.delay_s
        player.retry(out)
    return waited_s


def test_another_run_is_waited_for_as_long_as_it_takes_and_a_person_for_a_jobs_time() -> None:
    spec = replace(b.run_spec(recipes=("r1", "r2")), limits=Limits(job_s=600.0))
    player = Player(spec, b.device("a"))
    player.until_jobs()
    refused(player, THEIRS, 2000)
    assert refused(player, HELD, 595) <= 620
    player.end_job(player.job_on("a"))  # the hold ended: another one is waited for anew
    for task in player.tasks_of(CompareTask):
        player.end_task(task)
    refused(player, HELD, 600)
    player.end_job(player.job_on("a"), HELD)
    held, passed = sorted(player.play().values(), key=lambda result: result.outcome)
    assert (passed.outcome, held.outcome, held.flags) == ("passed", "errored", ("device_held",))
    assert "held by ann@desk; after 10 min it was waited for no longer" in held.reason


def test_every_cell_of_a_device_that_a_person_keeps_ends_and_those_of_a_pool_go_elsewhere() -> None:
    requests = (DeviceRequest("name=a"), DeviceRequest("", pool="both", any=1))
    spec = b.run_spec(recipes=("r1", "r2", "r3"), requests=requests)
    spec = replace(spec, limits=Limits(job_s=60.0))
    player = Player(spec, b.device("a"), b.device("b"))
    player.until_jobs()
    refused(player, HELD, 60)
    while jobs := [job for job in player.open_jobs if job.device == "a"]:
        player.retry(player.end_job(jobs[0], HELD))
    results = player.play().values()
    assert {r.outcome for r in results if "both" not in r.cell_id} == {"errored"}
    assert {r.outcome for r in results if "both" in r.cell_id} == {"passed"}


def test_a_cell_of_a_pool_goes_to_the_idle_device_and_not_back_to_the_held_one() -> None:
    pool = (DeviceRequest("", pool="both", any=1),)
    player = Player(b.run_spec(requests=pool), b.device("a"), b.device("b"))
    player.until_jobs()
    (first,) = player.open_jobs
    player.retry(player.end_job(first, HELD))
    (second,) = player.open_jobs
    assert {first.device, second.device} == {"a", "b"}


def test_a_device_whose_asking_cell_is_cancelled_is_asked_by_the_next_one() -> None:
    player = Player(b.run_spec(recipes=("r1", "r2")), b.device("a"))
    player.until_jobs()
    while player.open_tasks:
        player.end_task(player.open_tasks[0])
    out = player.end_job(job := player.job_on("a"), HELD)
    player.feed(CancelCell(job.job_id, "ann@desk"))
    assert not player.open_jobs
    player.retry(out)
    assert player.job_on("a").job_id != job.job_id
