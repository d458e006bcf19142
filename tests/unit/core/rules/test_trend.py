from __future__ import annotations

import pytest

from farm.core.rules.trend import red_since, sparkline


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([1.0, 2.0, 3.0], "▁▅█"), ([5.0, None, 5.0], "▁.▁"), ([None, None], ".."), ([], "")],
)
def test_nights_are_drawn(values: list[float | None], drawn: str) -> None:
    assert sparkline(values) == drawn


@pytest.mark.parametrize(
    ("outcomes", "since"),
    [
        (["passed", "failed", "inconclusive", "failed"], 1),
        (["failed", "passed"], None),
        (["failed", "passed", "errored", "failed"], 3),
        (["passed", "inconclusive"], None),
        ([], None),
    ],
)
def test_red_begins_with_the_first_failure_since_it_passed(
    outcomes: list[str], since: int | None
) -> None:
    assert red_since(outcomes) == since
