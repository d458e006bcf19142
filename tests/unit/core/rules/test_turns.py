"""Who is next on a device that several want."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from farm.core.lease import HOLD_RUN, Waiting
from farm.core.rules.turns import Turn, gives_way, in_turn, place_text

TURNS = st.lists(st.integers(-100, 100), max_size=20).map(
    lambda priorities: [Turn(priority, n) for n, priority in enumerate(priorities)]
)
WAITING = st.lists(
    st.builds(
        Waiting,
        owner=st.sampled_from(["ann@desk", "ci@rack"]),
        run_id=st.sampled_from([HOLD_RUN, "r1", "r2", "r3"]),
        waits_s=st.floats(0, 1e4),
    ),
    max_size=8,
)


@given(TURNS, st.randoms(use_true_random=False))
def test_the_order_is_one_whatever_order_they_are_listed_in(
    turns: list[Turn], chance: object
) -> None:
    listed = list(turns)
    chance.shuffle(listed)  # type: ignore[attr-defined]
    served = in_turn((turn, turn) for turn in listed)
    assert served == in_turn((turn, turn) for turn in turns)
    assert sorted(served) == sorted(turns), "nobody is lost or served twice"
    for first, second in pairwise(served):
        assert first.priority >= second.priority
        assert first.priority > second.priority or first.arrived < second.arrived


@given(TURNS, st.integers(-100, 100))
def test_who_comes_later_overtakes_only_by_priority(turns: list[Turn], priority: int) -> None:
    before = in_turn((turn, turn) for turn in turns)
    late = Turn(priority, len(turns))
    after = in_turn((turn, turn) for turn in [*turns, late])
    assert [turn for turn in after if turn is not late] == before, "nobody else changes places"
    assert all(turn.priority >= priority for turn in after[: after.index(late)])


@given(WAITING, st.sampled_from(["r1", "r2", HOLD_RUN]))
def test_a_person_goes_first_then_who_waits_longest_and_never_oneself(
    waiting: list[Waiting], run_id: str
) -> None:
    first = gives_way(waiting, run_id)
    others = [one for one in waiting if one.run_id != run_id]
    if first is None:
        assert not others
        return
    assert first in others
    people = [one for one in others if one.run_id == HOLD_RUN]
    assert (first.run_id == HOLD_RUN) == bool(people)
    assert first.waits_s == max(one.waits_s for one in people or others)


def test_a_place_is_said_in_words() -> None:
    assert place_text(0, "run r7") == "next; now: run r7"
    assert place_text(1, "run r7") == "1 job before it; now: run r7"
    assert place_text(2, "") == "2 jobs before it"
