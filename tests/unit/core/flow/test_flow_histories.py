"""2,000 random histories of a run, the same ones each time, and what they find."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from farm.core.flow import fence
from farm.core.flow.cellstate import TRANSITIONS, State
from tests.unit.core.flow.histories import play

HISTORIES = st.binary(min_size=81, max_size=161)
SETTINGS = settings(
    max_examples=2000,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@settings(SETTINGS)
@given(HISTORIES)
def test_whatever_happens_every_cell_gets_one_result_of_its_own(history: bytes) -> None:
    play(history)


def fails(history: bytes) -> bool:
    try:
        play(history)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize(
    "reason",
    ["another run", "another epoch", "a job that its device does not have", "another attempt"],
)
def test_histories_find_a_guard_that_is_missing(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(fence.CHECKS, reason)
    found = find(
        HISTORIES,
        fails,
        settings=settings(SETTINGS, derandomize=False, phases=[Phase.generate]),
        random=Random(0),
    )
    assert fails(found)


def test_histories_reach_every_state_by_every_legal_way() -> None:
    ways: set[tuple[State, State]] = set()
    random = Random(1)
    for _ in range(500):
        world = play(random.randbytes(121))
        for cell_id in world.cells:
            ways |= {(step.source, step.target) for step in world.flow.story(cell_id)}
    assert ways == set(TRANSITIONS)
