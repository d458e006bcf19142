"""Changes of level over the nights: found where they are, and rarely where there is none."""

from __future__ import annotations

import math
import random

import pytest

from farm.core.rules.changes import changes


def steady(draw: random.Random, nights: int, scatter: float, *, heavy: bool = False) -> list[float]:
    def night() -> float:
        tail = 3.0 if heavy and draw.random() < 0.1 else 1.0
        return 100 * math.exp(draw.gauss(0, tail * scatter))

    return [night() for _ in range(nights)]


@pytest.mark.parametrize("nights", [6, 12, 30])
@pytest.mark.parametrize("scatter", [0.01, 0.08])
def test_steady_nights_rarely_show_a_change(nights: int, scatter: float) -> None:
    draw = random.Random(nights)
    tries = 250
    false = sum(bool(changes(steady(draw, nights, scatter))) for _ in range(tries))
    assert false <= 0.03 * tries, "one of a hundred is expected"


def test_a_step_of_four_scatters_is_found_at_its_night() -> None:
    draw = random.Random(1)
    found = right = 0
    for _ in range(100):
        values: list[float | None] = [*steady(draw, 20, 0.03), *steady(draw, 10, 0.03)]
        values[20:] = [0.88 * v for v in values[20:] if v is not None]
        values[4] = None  # a night without a number
        seen = changes(values)
        found += len(seen) == 1
        right += len(seen) == 1 and abs(seen[0].place - 20) <= 1
        if seen:
            assert 0.80 < seen[-1].after / seen[0].before < 0.96
    assert found >= 93
    assert right >= 85


def test_two_steps_are_two_changes_and_one_odd_night_is_none() -> None:
    assert [one.place for one in changes([100.0, 101.0] * 5 + [80.0, 81.0] * 5 + [100.0] * 8)] == [
        10,
        20,
    ]
    odd = [100.0, 101.0, 99.0, 100.0, 60.0, 100.0, 101.0, 100.0, 99.0, 100.0]
    assert changes(odd) == ()


def test_too_few_nights_equal_nights_and_tiny_steps_say_nothing() -> None:
    assert changes([100.0, 50.0, 50.0, 50.0, None]) == ()
    assert changes([100.0] * 20) == ()
    assert changes([100.0] * 10 + [101.0] * 10) == ()
    assert changes([0.0, None, -1.0]) == ()
