"""Second sittings: cells that the first look leaves open run again, as cells of their own."""

from __future__ import annotations

import pytest

from farm.core.errors import DeviceLost
from farm.core.events import DeviceChanged
from farm.core.flow.second import SUFFIX, first_of, is_second, sittings
from farm.core.flow.stimuli import AskSecondLook, Interrupt, SecondLook
from farm.core.result import CellResult
from farm.core.rules.family import SECOND_BUDGET
from farm.core.runner import DeployFile
from farm.core.runtime import JOB_S, BaselineArm
from farm.core.spec import DeviceRequest
from tests.unit.core import builders as b
from tests.unit.core.flow.player import Player

ARM = BaselineArm("old", (DeployFile(b.ref("old.pte"), "model.pte"),), b.BUILD)


def player(
    *, epoch: int = 1, canary: bool = False, finished: dict[str, CellResult] | None = None
) -> Player:
    spec = b.run_spec(canary=canary)
    devices = b.device("a"), b.device("b")
    arms = {cell.cell_id: ARM for cell in b.plan(spec, *devices).cells}
    return Player(spec, *devices, epoch=epoch, finished=finished, baselines=arms)


def first_look(**how: object) -> tuple[Player, str]:
    """A run whose first look is over, and the cell on device `a`."""
    made = player(**how)  # type: ignore[arg-type]
    results = made.play()
    assert isinstance(made.log[-1], AskSecondLook)
    assert not made.flow.finished
    (cell_id,) = (r.cell_id for r in results.values() if r.device.name == "a")
    return made, cell_id


def test_a_suspicious_cell_runs_again_on_its_device_beside_the_baseline() -> None:
    made, cell_id = first_look()
    made.feed(SecondLook((cell_id,)))
    (job,) = made.open_jobs
    assert (job.job_id, job.device, job.baseline) == (cell_id + SUFFIX, "a", ARM)
    results = made.play()
    assert made.flow.finished
    assert len(results) == 3
    assert set(sittings(results)) == {cell_id}
    assert results[cell_id].outcome == results[cell_id + SUFFIX].outcome == "passed"


def test_a_cell_of_a_pool_sits_again_on_the_device_that_it_had() -> None:
    spec = b.run_spec(requests=(DeviceRequest("", any=1, pool="phones"),))
    devices = b.device("a"), b.device("b")
    arms = {cell.cell_id: ARM for cell in b.plan(spec, *devices).cells}
    made = Player(spec, *devices, baselines=arms)
    had = made.until_jobs()[0].device
    (cell_id,) = made.play()
    made.feed(SecondLook((cell_id,)))
    assert made.open_jobs[0].device == had
    made.feed(DeviceChanged(b.device(had, alive=False)))
    made.retry(made.end_job(made.open_jobs[0], DeviceLost("power cut", device=had)))
    assert made.flow.finished, "no other device of the pool stands in for it"
    assert made.flow.results[cell_id + SUFFIX].outcome == "errored"


def test_a_second_sitting_is_longer_and_no_loss_ends_it() -> None:
    made = player()
    first = made.until_jobs()[0]
    made.play()
    made.feed(SecondLook((first.cell_id,)))
    (second,) = made.open_jobs
    assert first.policy is not None
    assert second.policy is not None
    assert second.policy.budget_s == SECOND_BUDGET * first.policy.budget_s
    assert second.policy.most == SECOND_BUDGET * first.policy.most
    assert (first.policy.confirms, second.policy.confirms) == (False, True)
    for job in (first, second):
        assert job.policy is not None
        assert job.timeout_s >= JOB_S + job.policy.budget_s, "a budget is never cut by the limit"


def test_nothing_suspicious_ends_the_run() -> None:
    made, _ = first_look()
    made.feed(SecondLook(()))
    assert made.flow.finished
    assert made.open_jobs == []


def test_without_a_baseline_nobody_is_asked() -> None:
    made = Player(b.run_spec(), b.device("a"))
    made.play()
    assert made.flow.finished
    assert not any(isinstance(one, AskSecondLook) for one in made.log)


def test_a_device_that_is_gone_leaves_the_sitting_errored_and_the_cell_as_it_was() -> None:
    made, cell_id = first_look()
    made.feed(DeviceChanged(b.device("a", alive=False)))
    made.feed(SecondLook((cell_id,)))
    assert made.flow.finished
    second = made.flow.results[cell_id + SUFFIX]
    assert (second.outcome, second.flags) == ("errored", ("device_missing",))
    assert made.flow.results[cell_id].outcome == "passed"


def test_a_sitting_is_retried_like_any_other_cell() -> None:
    made, cell_id = first_look()
    made.feed(SecondLook((cell_id,)))
    made.retry(made.end_job(made.open_jobs[0], DeviceLost("power cut", device="a")))
    results = made.play()
    assert results[cell_id + SUFFIX].flags == ("retried",)


@pytest.mark.parametrize("canary", [False, True])
def test_a_resumed_run_makes_the_sittings_that_are_missing(canary: bool) -> None:
    made, cell_id = first_look(canary=canary)
    first = dict(made.flow.results)
    again = player(epoch=2, canary=canary, finished=first)
    assert isinstance(again.log[-1], AskSecondLook)
    again.feed(SecondLook((cell_id,)))
    job = again.until_jobs()[0]
    assert job.epoch == 2
    assert (job.canary is not None) == canary
    results = again.play()
    assert again.flow.finished
    assert results[cell_id + SUFFIX].outcome == "passed"
    third = player(epoch=3, canary=canary, finished=dict(results))
    third.feed(SecondLook((cell_id,)))
    assert third.flow.finished
    assert third.open_jobs == []


def test_an_interruption_ends_sittings_too() -> None:
    made, cell_id = first_look()
    made.feed(SecondLook((cell_id,)))
    made.feed(Interrupt())
    assert made.flow.finished
    assert made.flow.results[cell_id + SUFFIX].flags == ("interrupted",)


def test_an_interruption_before_the_choice_ends_the_run() -> None:
    made, cell_id = first_look()
    made.feed(Interrupt())
    assert made.flow.finished
    made.feed(SecondLook((cell_id,)))
    assert made.open_jobs == []


def test_names_of_sittings() -> None:
    assert (first_of("m/r@a" + SUFFIX), first_of("m/r@a")) == ("m/r@a", "m/r@a")
    assert is_second("m/r@a" + SUFFIX)
    assert not is_second("m/r@a")
