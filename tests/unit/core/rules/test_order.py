"""The order of work through two stages."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from farm.core.rules.order import flow_shop_order

STAGES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=5)


def done_s(stages: list[tuple[int, int]]) -> int:
    """When all of it is done, where each stage does one piece at a time."""
    first = second = 0
    for before, after in stages:
        first += before
        second = max(first, second) + after
    return second


@given(STAGES)
def test_no_other_order_is_done_sooner(stages: list[tuple[int, int]]) -> None:
    ordered = flow_shop_order({n: (float(a), float(b)) for n, (a, b) in enumerate(stages)})
    assert sorted(ordered) == list(range(len(stages)))
    assert done_s([stages[n] for n in ordered]) == min(map(done_s, map(list, permutations(stages))))


def test_pieces_that_are_alike_stay_as_they_came() -> None:
    assert flow_shop_order({"b": (1.0, 2.0), "a": (1.0, 2.0)}) == ["b", "a"]
    assert flow_shop_order({"b": (2.0, 1.0), "a": (2.0, 1.0)}) == ["b", "a"]
