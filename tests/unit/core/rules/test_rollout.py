"""A deployment in stages: whatever fails or is killed, no device is left between two versions."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.core.deployment import parse_stages
from farm.core.rules.rollout import (
    Do,
    Finished,
    Kind,
    RolloutPlan,
    StepEvent,
    Target,
    Wait,
    decide,
    forecast_s,
    views,
)

OLD = "old"


class Killed(Exception):
    """The controller's process ended here."""


@dataclass
class World:
    """Devices and what is in use there, a journal on a disk, and a clock."""

    plan: RolloutPlan
    #: Steps that fail, as (step, device); a rollback does as long as its number is above 0.
    failing: dict[tuple[str, str], int]
    #: In which of its moments (before, amid and after each step) the process is killed.
    kills: list[int]
    before: dict[str, str]
    current: dict[str, str] = field(default_factory=dict)
    events: list[StepEvent] = field(default_factory=list)
    now: float = 0.0
    moment: int = 0
    done: list[tuple[int, Do]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.current = dict(self.before)

    def tick(self) -> None:
        self.moment += 1
        self.now += 1
        if self.moment in self.kills:
            raise Killed

    def session(self, number: int) -> Finished:
        while True:
            match decide(self.plan, self.events, self.now, number):
                case Finished() as finished:
                    return finished
                case Wait(until=until):
                    assert until > self.now
                    self.now = until
                case steps:
                    self.events += [self.event("began", step, number) for step in steps]
                    for step in steps:
                        self.tick()
                        self.events.append(self.perform(step, number))

    def perform(self, step: Do, number: int) -> StepEvent:
        self.done.append((number, step))
        key = step.step, step.device
        if self.failing.get(key, 0) > 0:
            self.failing[key] -= 1
            return self.event("failed", step, number)
        previous = ""
        match step.step:
            case "prepare":
                previous = self.current[step.device]
            case "switch":
                assert self.current[step.device] in (step.previous, step.version)
                self.current[step.device] = step.version
            case "restore":
                assert self.current[step.device] in (step.previous, step.version)
                self.current[step.device] = step.previous
        self.tick()  # done on the device, not yet in the journal
        return self.event("ok", step, number, previous)

    def event(self, kind: Kind, step: Do, number: int, previous: str = "") -> StepEvent:
        return StepEvent(
            self.now, number, kind, step.step, step.device, detail="why", previous=previous
        )

    def run(self) -> tuple[Finished, int]:
        for number in range(1, len(self.kills) + 2):
            try:
                return self.session(number), number
            except Killed:
                continue
        raise AssertionError("killed more often than planned")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.integers(1, 7))
    names = [f"d{number}" for number in range(count)]
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from(["prepare", "switch", "check", "restore"]),
                      st.sampled_from(names)),
            max_size=3,
        )
    )  # fmt: skip
    text = draw(st.sampled_from(["100%", "1,100%", "1,50%,100%", "30%,60%,100%"]))
    return World(
        plan=RolloutPlan(
            tuple(Target(name, "new") for name in names),
            parse_stages(text).ends(count),
            wait_s=draw(st.sampled_from([0.0, 50.0])),
            on_failure=draw(st.sampled_from(["rollback", "stop"])),
        ),
        failing={step: draw(st.integers(1, 2)) for step in steps},
        kills=sorted(draw(st.sets(st.integers(1, 30), max_size=4))),
        before={name: draw(st.sampled_from(["", OLD])) for name in names},
    )


@given(worlds())
def test_whatever_fails_and_dies_every_device_has_the_old_or_the_new_version(world: World) -> None:
    finished, last = world.run()
    seen = views(world.plan, world.events)
    assert all(world.current[d] in (world.before[d], "new") for d in world.current)
    stages = world.plan.stages
    if finished.outcome == "deployed":
        assert set(world.current.values()) == {"new"}
        assert all(view.checked for view in seen.values())
        return
    assert finished.failures
    later = {t.device for stage in stages[finished.stage :] for t in stage}
    assert all(world.current[d] == world.before[d] for d in later), "nothing was done there"
    assert not {step.device for _, step in world.done} & later
    failed = {t.device for t in stages[finished.stage - 1]}
    earlier = set(world.current) - later - failed
    assert all(world.current[d] == "new" for d in earlier), "they passed their check"
    undone = {d for d in failed if world.current[d] == world.before[d]}
    if finished.outcome == "rolled_back":
        assert undone == failed
    if finished.outcome == "rollback_incomplete":
        named = {device for device, why in finished.failures if why.startswith("restore")}
        assert failed - undone <= named
        again = World(world.plan, {}, [], world.before, events=world.events, now=world.now)
        again.current = world.current
        assert again.session(last + 1).outcome == "rolled_back", "a resume tries again"
        assert all(again.current[d] == world.before[d] for d in failed)


@given(worlds())
def test_no_device_of_a_stage_switches_before_all_are_prepared_nor_a_stage_too_early(
    world: World,
) -> None:
    world.run()
    prepared: set[str] = set()
    checked: set[str] = set()
    begun: list[str] = []
    for event in world.events:
        stage = next(
            n for n, s in enumerate(world.plan.stages) if event.device in {t.device for t in s}
        )
        if event.step == "prepare" and event.kind == "ok":
            prepared.add(event.device)
        if event.step == "check" and event.kind == "ok":
            checked.add(event.device)
        if event.step == "switch" and event.kind == "began":
            begun.append(event.device)
            assert {t.device for t in world.plan.stages[stage]} <= prepared
            assert {t.device for s in world.plan.stages[:stage] for t in s} <= checked


@given(worlds())
def test_who_wants_it_back_gets_everything_back(world: World) -> None:
    world.failing = {}
    with contextlib.suppress(Killed):
        world.session(1)
    world.kills = []
    world.events.append(StepEvent(world.now, 2, "back"))
    assert world.session(2).outcome == "rolled_back"
    assert world.current == world.before


def test_the_wait_counts_from_the_last_switch_also_after_a_restart() -> None:
    plan = RolloutPlan((Target("a", "v"), Target("b", "v")), (2,), wait_s=600)
    events = [
        StepEvent(1.0, 1, "ok", "prepare", "a"),
        StepEvent(1.0, 1, "ok", "prepare", "b"),
        StepEvent(10.0, 1, "ok", "switch", "a"),
        StepEvent(20.0, 1, "ok", "switch", "b", boot_id="x"),
    ]
    assert decide(plan, events, 100.0, 2) == Wait(620.0, 1)
    steps = decide(plan, events, 620.0, 2)
    assert steps == (Do("check", "a", "v", "", ""), Do("check", "b", "v", "", "x"))


def test_a_forecast_counts_rounds_of_devices_and_waits() -> None:
    plan = RolloutPlan(tuple(Target(f"d{n}", "v") for n in range(20)), (1, 2, 20), wait_s=60)
    # 1, 1 and 18 devices, 8 at once: 1 + 1 + 3 rounds of 15 s, and three waits.
    assert forecast_s(plan, 10, 5, 8) == 5 * 15 + 3 * 60


@pytest.mark.parametrize(
    ("text", "count", "ends"),
    [
        ("100%", 3, (3,)),
        ("1,10%,100%", 100, (1, 10, 100)),
        ("1,10%,100%", 5, (1, 5)),
        ("2, 50%, 100%", 3, (2, 3)),
        ("33.3%,100%", 3, (1, 3)),
        ("5,100%", 2, (2,)),
    ],
)
def test_stages_add_up_and_none_is_empty(text: str, count: int, ends: tuple[int, ...]) -> None:
    assert parse_stages(text).ends(count) == ends


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "100%"), ("1", "100%"), ("0,100%", "no stage"), ("x,100%", "no stage"),
     ("50%,10%,100%", "larger"), ("3,1,100%", "larger"), ("120%", "more than everything"),
     ("1.5,100%", "no stage"), ("-1,100%", "no stage")],
)  # fmt: skip
def test_stages_that_make_no_sense_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_stages(text)
