"""Which events count, which device a cell gets, and what a cell's state may become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.errors import ConnectError, DeviceLost, FarmError, LeaseError, RunnerCrashed
from farm.core.events import DeviceChanged, JobFinished, JobStarted
from farm.core.flow.cellstate import TRANSITIONS, CellProgress, FlowDefect, State
from farm.core.flow.stimuli import Interrupt, TaskEnded
from farm.core.report import alarms
from farm.core.runtime import DeviceJob
from farm.core.spec import DeviceRequest
from farm.core.tasks import CompareTask
from tests.unit.core import builders as b
from tests.unit.core.flow.player import AT, Player

ROOT = Path(__file__).parents[4]
TWO = (DeviceRequest("", any=2, pool="p"),)
ONE = (DeviceRequest("", any=1, pool="p"),)


def ended(job: DeviceJob, error: FarmError | None = None) -> JobFinished:
    return JobFinished(job.attempt_id, job.device, AT, None if error else b.run_result(), error)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run_id": "earlier"}, "another run"),
        ({"epoch": 7}, "another epoch"),
        ({"job_id": "m1/r9:executorch:auto:a"}, "an unknown cell"),
        ({"job_id": "m1/r1:executorch:auto:b"}, "a job that its device does not have"),
        ({"attempt": 2}, "another attempt"),
    ],
)
def test_events_of_others_are_dropped_and_counted(change: dict[str, object], reason: str) -> None:
    player = Player(b.run_spec(), b.device("a"), b.device("b"))
    player.until_jobs()
    job = player.job_on("a")
    stray = replace(ended(job), attempt_id=replace(job.attempt_id, **change))  # type: ignore[arg-type]
    assert player.feed(stray) == []
    assert player.feed(JobStarted(stray.attempt_id, "a", AT)) == []
    assert player.flow.dropped == {reason: 2}
    assert alarms((), (), (), player.flow.dropped) == (f"job events dropped: 2 of {reason}",)
    assert {result.outcome for result in player.play().values()} == {"passed"}


def test_an_end_that_comes_twice_counts_once() -> None:
    player = Player(b.run_spec(recipes=("r1", "r2")), b.device("a"))
    job = player.until_jobs()[0]
    player.end_job(job)
    assert player.feed(ended(job, RunnerCrashed("signal 11"))) == []
    assert player.flow.dropped == {"a job that its device does not have": 1}
    assert {result.outcome for result in player.play().values()} == {"passed"}


def test_waits_for_a_held_device_have_numbers_of_their_own() -> None:
    """Else the late end of one wait would end the next."""
    player = Player(b.run_spec(), b.device("a"))
    first = player.until_jobs()[0]
    player.retry(player.end_job(first, LeaseError("held by ann", device="a")))
    assert player.open_jobs[0].attempt == 2
    player.feed(ended(first, LeaseError("held by ann", device="a")))
    assert player.flow.dropped == {"another attempt": 1}
    (result,) = player.play().values()
    assert [attempt.n for attempt in result.attempts] == [2]


def test_the_end_of_an_interrupted_cell_s_job_gives_its_device_back() -> None:
    player = Player(b.run_spec(), b.device("a"))
    job = player.until_jobs()[0]
    player.feed(Interrupt())
    before = dict(player.flow.results)
    assert player.flow.roster.at_work == {"a": job.attempt_id}
    player.end_job(job)
    assert player.flow.roster.at_work == {}
    assert player.flow.roster.is_free("a")
    assert player.flow.results == before
    assert player.flow.dropped == {}


@pytest.mark.parametrize("error", [None, RunnerCrashed("signal 6")])
def test_a_job_without_a_result_or_with_an_error_beside_it_is_errored(
    error: FarmError | None,
) -> None:
    player = Player(b.run_spec(), b.device("a"))
    job = player.until_jobs()[0]
    result = None if error is None else b.run_result()
    player.feed(JobFinished(job.attempt_id, "a", AT, result, error))
    (cell,) = player.flow.results.values()
    assert (cell.outcome, cell.flags) == ("errored", ("device_failed",))


@pytest.mark.parametrize("error", [None, FarmError("no memory")])
def test_a_comparison_without_a_judgement_or_with_an_error_is_errored(
    error: FarmError | None,
) -> None:
    player = Player(b.run_spec(), b.device("a"))
    player.end_job(player.until_jobs()[0])
    while not player.tasks_of(CompareTask):
        player.end_task(player.open_tasks[0])
    (task,) = player.tasks_of(CompareTask)
    judgement = None if error is None else b.judgement()
    player.feed(TaskEnded(task.task_id, judgement, error))
    (cell,) = player.flow.results.values()
    assert (cell.outcome, cell.flags) == ("errored", ("compare_failed",))


# -- which device


def test_cells_of_any_2_run_on_two_devices() -> None:
    player = Player(b.run_spec(requests=TWO), b.device("a"), b.device("b"))
    player.until_jobs()
    player.end_job(player.job_on("a"))
    assert [job.device for job in player.open_jobs] == ["b"]
    assert sorted(result.device.name for result in player.play().values()) == ["a", "b"]


def test_a_sibling_waits_for_another_device_and_ends_when_none_is_left() -> None:
    pool = (b.device("a"), b.device("b").marked("held", "held by ann"))
    player = Player(b.run_spec(requests=TWO), *pool)
    player.until_jobs()
    player.end_job(player.job_on("b"))
    player.feed(DeviceChanged(b.device("a").marked("offline", "power cut")))
    player.retry(player.end_job(player.job_on("a"), DeviceLost("power cut", device="a")))
    results = player.play()
    gone = next(result for result in results.values() if result.outcome == "errored")
    assert gone.flags == ("device_missing",)
    assert gone.reason == (
        "no device is left for this cell: a stopped answering during this run (power cut); b has "
        "m1/r1:executorch:auto:p#2, and each is to run on a device of its own"
    )
    assert sorted(result.outcome for result in results.values()) == ["errored", "passed"]


def test_any_2_of_one_usable_device_is_said_before_the_run() -> None:
    player = Player(b.run_spec(requests=TWO), b.device("a"), b.device("b", alive=False))
    results = player.play()
    assert sorted(result.outcome for result in results.values()) == ["passed", "skipped"]
    (skip,) = [result for result in results.values() if result.outcome == "skipped"]
    assert skip.flags == ("device_missing",)
    assert skip.reason == "`any: 2` asks for different devices and 1 can be used; b: no answer"


def test_a_resumed_sibling_does_not_run_where_the_other_did() -> None:
    devices = (b.device("a"), b.device("b"))
    first = Player(b.run_spec(requests=TWO), *devices)
    done = next(r for r in first.play().values() if r.device.name == "a")
    again = Player(b.run_spec(requests=TWO), *devices, epoch=2, finished={done.cell_id: done})
    (job,) = again.until_jobs()
    assert job.device == "b"
    assert job.epoch == 2
    assert len(again.play()) == 2
    assert again.flow.finished


def test_a_cell_s_last_attempt_does_not_cost_a_good_device() -> None:
    player = Player(
        b.run_spec(recipes=("r1", "r2"), requests=ONE), *(b.device(name) for name in "abcd")
    )
    unlucky = player.until_jobs()[0].job_id
    while unlucky not in player.flow.results:
        jobs = [job for job in player.open_jobs if job.job_id == unlucky]
        if jobs:
            device = jobs[0].device
            player.retry(player.end_job(jobs[0], ConnectError("no answer", device=device)))
        else:
            player.end_task(player.open_tasks[0])
    failed = player.flow.results[unlucky]
    assert len({attempt.device for attempt in failed.attempts}) == 3
    assert all(player.flow.roster.is_alive(name) for name in "abcd")
    assert sorted(r.outcome for r in player.play().values()) == ["errored", "passed"]


def test_failures_in_a_row_cost_a_device_whichever_cells_they_are_of() -> None:
    player = Player(b.run_spec(recipes=("r1", "r2", "r3", "r4")), b.device("a"))
    player.until_jobs()
    for turn in range(5):  # two failures, a result, then three failures
        job = player.open_jobs[0]
        assert player.flow.roster.is_alive("a")
        player.end_job(job, None if turn == 2 else ConnectError(f"cut {turn}", device="a"))
        while not player.open_jobs and player.open_tasks:
            player.end_task(player.open_tasks[0])
        if turn < 4 and not player.open_jobs:
            player.retry(player.log[-40:])
    job = player.open_jobs[0]
    player.retry(player.end_job(job, ConnectError("cut 5", device="a")))
    assert not player.flow.roster.is_alive("a")
    player.retry(player.log)
    gone = [r for r in player.play().values() if r.flags == ("device_missing",)]
    assert gone
    assert all("failed 3 jobs in a row, the last: cut 5" in result.reason for result in gone)


def test_a_device_that_failed_a_cell_is_better_than_none() -> None:
    player = Player(b.run_spec(requests=ONE), b.device("a"), b.device("b"))
    job = player.until_jobs()[0]
    other = next(name for name in "ab" if name != job.device)
    player.feed(DeviceChanged(b.device(other).marked("recovering", "rebooting")))
    player.retry(player.end_job(job, DeviceLost("cable", device=job.device)))
    assert not player.open_jobs, "the other one is being recovered"
    player.feed(DeviceChanged(b.device(other).marked("offline", "it stayed away")))
    assert [again.device for again in player.open_jobs] == [job.device]
    (result,) = player.play().values()
    assert (result.outcome, result.flags) == ("passed", ("retried",))


# -- states


def test_a_cell_keeps_its_story() -> None:
    player = Player(b.run_spec(), b.device("a"))
    job = player.until_jobs()[0]
    player.retry(player.end_job(job, DeviceLost("cable", device="a")))
    (result,) = player.play().values()
    story = player.flow.story(result.cell_id)
    assert [(step.target, step.why) for step in story] == [
        (State.QUEUED, "its program and token ids are there"),
        (State.SUBMITTED, "attempt 1 on a"),
        (State.PAUSED, "cable"),
        (State.QUEUED, "the pause is over"),
        (State.SUBMITTED, "attempt 2 on a"),
        (State.COMPARING, "measured"),
        (State.DONE, "passed: retried"),
    ]
    numbers = [step.stimulus for step in story]
    assert numbers == sorted(numbers)


def test_a_transition_that_the_table_lacks_is_refused_with_the_story() -> None:
    cell = b.plan(b.run_spec(), b.device("a")).cells[0]
    one = CellProgress(cell, frozenset(cell.devices))
    one.move(State.QUEUED, "export and reference are there", 3)
    with pytest.raises(FlowDefect, match=r"from `queued` to `comparing` \(why, stimulus 4\).*3: q"):
        one.move(State.COMPARING, "why", 4)
    assert one.state is State.QUEUED


def test_a_second_result_is_refused() -> None:
    player = Player(b.run_spec(), b.device("a"))
    (result,) = player.play().values()
    with pytest.raises(FlowDefect, match="second result"):
        player.flow.cells.record(result)


def test_every_state_can_be_left_and_reached() -> None:
    sources, targets = zip(*TRANSITIONS, strict=True)
    assert set(sources) == set(State) - {State.DONE}
    assert set(targets) == set(State) - {State.WAITING_ARTIFACT}


def test_architecture_lists_the_states() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text.partition("## States of a cell")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    assert rows[1:] == [state.value for state in State]
