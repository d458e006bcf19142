"""The controller of a deployment over simulated devices: journal first, then the next step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from farm.core.deployment import parse_stages
from farm.core.errors import DeviceLost, FarmError, Interrupted
from farm.core.rules.rollout import RolloutPlan, Target, forecast_s
from farm.deploy import record
from farm.deploy.controller import Rollout
from farm.deploy.door import Prepared
from farm.deploy.record import SavedDeployment
from tests.pace import slack
from tests.unit.deploy.test_record import saved

PREPARE_S, CHECK_S = 0.06, 0.03


@dataclass
class SimulatedDoor:
    """A device that takes its time."""

    name: str
    current: str = "v1"
    #: Called at the beginning of each step.
    strike: Callable[[str], None] = lambda step: None
    steps: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def _step(self, name: str, seconds: float = 0.0) -> None:
        self.steps.append(name)
        self.strike(name)
        if self.ended.wait(seconds):
            raise Interrupted("ended")

    def prepare(self) -> Prepared:
        self._step("prepare", PREPARE_S)
        return Prepared(self.current, 7)

    def switch(self, previous: str) -> str:
        self._step("switch")
        assert self.current in (previous, "v2")
        self.current = "v2"
        return "boot"

    def check(self, boot_id: str) -> str:
        assert boot_id == "boot"
        self._step("check", CHECK_S)
        return "right"

    def restore(self, previous: str, was_served: bool | None) -> None:
        del was_served
        self._step("restore")
        self.current = previous

    def cancel(self, error: FarmError) -> None:
        self.ended.set()


def fleet(count: int, stages: str) -> tuple[SavedDeployment, dict[str, SimulatedDoor]]:
    names = [f"d{number}" for number in range(count)]
    targets = tuple(Target(name, "v2") for name in names)
    plan = RolloutPlan(targets, parse_stages(stages).ends(count))
    return replace(saved(), rollout=plan), {name: SimulatedDoor(name) for name in names}


def test_twenty_devices_take_the_time_that_the_plan_says(tmp_path: Path) -> None:
    plan, doors = fleet(20, "1,10%,100%")
    started = time.monotonic()
    with record.create(tmp_path, plan) as journal:
        finished = Rollout(journal, doors, lambda _device, _text: None, workers=8).run()
    took = time.monotonic() - started
    assert finished.outcome == "deployed"
    assert {door.current for door in doors.values()} == {"v2"}
    planned = forecast_s(plan.rollout, PREPARE_S, CHECK_S, 8)
    # Writing the journal is not planned: some milliseconds for each of its lines.
    assert planned * 0.9 < took < planned + 1.5 * slack()


def test_a_lost_device_of_the_second_stage_takes_that_stage_back(tmp_path: Path) -> None:
    plan, doors = fleet(6, "2,100%")

    def lost(step: str) -> None:
        if step == "switch":
            raise DeviceLost("unplugged")

    doors["d4"].strike = lost
    told: list[tuple[str, str]] = []
    with record.create(tmp_path, plan) as journal:
        finished = Rollout(journal, doors, lambda device, text: told.append((device, text))).run()
    assert (finished.outcome, finished.stage) == ("rolled_back", 2)
    assert finished.failures == (("d4", "switch: unplugged"),)
    assert [door.current for door in doors.values()] == ["v2"] * 2 + ["v1"] * 4
    assert ("d4", "switch: unplugged") in told
    assert sum(event.pushed_bytes for event in journal.events) == 6 * 7


def test_ctrl_c_breaks_steps_off_and_a_resume_does_them_again(tmp_path: Path) -> None:
    plan, doors = fleet(3, "1,100%")
    with record.create(tmp_path, plan) as journal:
        rollout = Rollout(journal, doors, lambda _device, _text: None)
        doors["d1"].strike = lambda _step: rollout.interrupt()
        with pytest.raises(Interrupted, match="--resume d1"):
            rollout.run()
    assert not [e for e in journal.events if e.kind == "failed"], "broken off is not failed"
    assert [door.current for door in doors.values()] == ["v2", "v1", "v1"]
    again = {name: SimulatedDoor(name, door.current) for name, door in doors.items()}
    with record.Record(record.find(tmp_path, "latest")) as journal:
        assert Rollout(journal, again, lambda _device, _text: None).run().outcome == "deployed"
    assert again["d0"].steps == [], "what is done stays done"
    assert {door.current for door in again.values()} == {"v2"}


def test_nothing_is_done_that_could_not_be_written_down(tmp_path: Path) -> None:
    plan, doors = fleet(2, "100%")
    with record.create(tmp_path, plan) as journal:
        journal._file.close()
        with pytest.raises(ValueError, match="closed file"):
            Rollout(journal, doors, lambda _device, _text: None).run()
    assert all(door.steps == [] for door in doors.values())
