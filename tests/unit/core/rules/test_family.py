"""The error of a whole night, by its definition and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from farm.core.rules.family import FAMILY, SUSPECT, WEIGHT, combined, holm


@pytest.mark.parametrize(
    ("p", "rejected"),
    [
        ([], []),
        ([0.009], [True]),
        ([0.011], [False]),
        ([0.004, 0.006], [True, True]),
        ([0.006, 0.006], [False, False]),
        ([0.02, 0.001, 0.0049], [False, True, True]),
        ([0.5, 0.0], [False, True]),
    ],
)
def test_holm_steps_down(p: list[float], rejected: list[bool]) -> None:
    assert holm(p, 0.01) == rejected


def test_the_order_of_cells_decides_nothing() -> None:
    p = [0.0001, 0.8, 0.00002, 0.004, 0.03]
    found = dict(zip(p, holm(p), strict=True))
    for turn in range(5):
        turned = p[turn:] + p[:turn]
        assert holm(turned) == [found[value] for value in turned]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0.04, None, 0.04),
        (0.04, 0.001, SUSPECT / WEIGHT * 0.001),
        (0.06, 0.001, 0.001 / (1 - WEIGHT)),
        (0.06, 0.9, 1.0),
    ],
)
def test_a_second_sitting_counts_by_what_the_first_one_saw(
    first: float, second: float | None, expected: float
) -> None:
    assert combined(first, second) == pytest.approx(expected)


def test_a_clean_night_has_a_false_regression_in_a_hundredth_of_them() -> None:
    """240 comparisons whose p-values are uniform, each with a second sitting."""
    random = np.random.default_rng(4)
    false, nights = 0, 6_000
    for _ in range(nights):
        first = random.random(240)
        p = [combined(one, random.random()) for one in first.tolist()]
        false += any(holm(p))
    assert false / nights <= 1.4 * FAMILY
    assert false / nights >= 0.5 * FAMILY, "the bound is used, not only kept"
