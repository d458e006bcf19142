"""A share of `make soak`: seeds of whole histories, kills at moments, and guards taken out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from farm.core.flow import fence
from farm.core.plan import make_plan
from farm.planning.planning import Prepared
from farm.run import site_link
from farm.site.agent.attached import AttachedRuns
from tests.sim import faults
from tests.sim.faults import Fault
from tests.sim.history import Shape, kills, play
from tests.sim.network import Weather
from tests.sim.soak import KILLED, MATRIX, NIGHT
from tests.sim.world import Violation

TWO = Shape(hosts=2, devices=2, recipes=2, runs=2, faults=4)


def test_a_seed_is_a_history() -> None:
    first, again, other = (play(TWO, seed).digest for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_without_faults_every_cell_has_its_verdict() -> None:
    outcome = play(Shape(runs=2), 1, weather=Weather())
    assert sum(outcome.outcomes.values()) == 16
    assert set(outcome.outcomes) == {"passed", "failed"}
    assert (outcome.resumed, outcome.dropped, outcome.struck) == (0, 0, ())


@pytest.mark.parametrize("seed", range(1, 25))
def test_random_nights(seed: int) -> None:
    play(NIGHT if seed % 2 else TWO, seed)


def test_a_large_matrix_with_many_faults() -> None:
    outcome = play(MATRIX, 1)
    assert sum(outcome.outcomes.values()) == MATRIX.cells


@pytest.mark.parametrize("at_s", [40.0, 70.0, 100.0])
def test_ctrl_c_ends_a_run_in_time_while_every_site_is_frozen(at_s: float) -> None:
    frozen = [Fault(at_s - 1, "freeze_agent", which, 200.0) for which in (0, 1)]
    pressed = [*frozen, Fault(at_s, "ctrl_c", 0, 0.0)]
    outcome = play(Shape(), 3, weather=Weather(), planned=pressed)
    assert outcome.resumed > 0
    with mock.patch.object(site_link, "_SHORT_S", 60.0), pytest.raises(Violation, match="Ctrl-C"):
        play(Shape(), 3, weather=Weather(), planned=pressed)


def test_somebody_is_killed_at_a_moment() -> None:
    """All of them are in `make soak`; here every 25th, so that each kind has its turn."""
    moments = play(KILLED, 0, weather=Weather()).moments
    assert set(moments) == set(faults.MOMENTS)
    every = list(kills(moments))
    chosen = every[:: len(every) // 24]
    assert {kill.victim for kill in chosen} == set(faults.VICTIMS)
    resumed = [play(KILLED, 0, weather=Weather(), kill=kill).resumed for kill in chosen]
    assert sum(resumed) >= sum(kill.victim == "controller" for kill in chosen) > 0


# -- guards that are taken out


@contextmanager
def without_the_run_in_events() -> Iterator[None]:
    kept = {name: check for name, check in fence.CHECKS.items() if name != "another run"}
    with mock.patch.dict(fence.CHECKS, kept, clear=True):
        yield


@contextmanager
def without_the_plan_in_resume() -> Iterator[None]:
    """Whoever goes on plans anew, with the devices that answer."""

    async def plan_anew(saved: Any, sites: Any, home: Any) -> Prepared:
        entries = [device.entry for device in saved.plan.devices]
        found = []
        for name, site in sites.items():
            mine = [entry for entry in entries if entry.site == name]
            found += await site.inventory(mine, adb_auto=False)
        there = [device for device in found if device.usable]
        catalog = saved.prepared.catalog
        return Prepared(saved.spec, {}, catalog, make_plan(saved.spec, there, catalog))

    with mock.patch("tests.sim.runs.look_again", plan_anew):
        yield


@contextmanager
def without_an_outbox_for_each_run() -> Iterator[None]:
    """All controllers of an agent share one."""
    real = {name: getattr(AttachedRuns, name) for name in ("get", "open", "forget")}

    def shared(name: str) -> Any:
        return lambda self, run_id: real[name](self, "everybody")

    with mock.patch.multiple(AttachedRuns, **{name: shared(name) for name in real}):
        yield


STRAYS = Weather(stray=0.2)
#: The guard, what a history is about, and the first seed that finds it missing.
GUARDS = [
    (without_the_run_in_events, Shape(runs=2), STRAYS, 1),
    (without_the_plan_in_resume, Shape(faults=6), Weather(), 34),
    (without_an_outbox_for_each_run, Shape(runs=2), Weather(), 1),
]


@pytest.mark.parametrize(
    ("guard", "shape", "weather", "seed"), GUARDS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_guard_that_is_missing_is_found(
    guard: Any, shape: Shape, weather: Weather, seed: int
) -> None:
    play(shape, seed, weather=weather)
    with guard(), pytest.raises(Violation):
        play(shape, seed, weather=weather)
