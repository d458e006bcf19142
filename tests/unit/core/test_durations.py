"""Durations and holders, as people write and read them."""

from __future__ import annotations

import pytest

from farm.core.durations import duration_text, parse_duration
from farm.core.lease import HOLD_RUN, Hold, Lease, read_lease


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("90min", 5400),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("1.5h", 5400),
        ("45 s", 45),
        ("1d", 86400),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "2x", "h", "0h", "-1h", "1h or so", "2h 5"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 2h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3599, "1 h"),
        (6000, "1 h 40 min"),
        (7200, "2 h"),
        (86400, "1 d"),
        (97200, "1 d 3 h"),
    ],
)
def test_time_left_is_written(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_person_is_named_with_reason_and_time_and_a_run_with_its_id() -> None:
    person = read_lease("ann@desk", HOLD_RUN, "new battery", 6000)
    assert person == Hold("ann@desk", "new battery", 6000)
    assert person.text == "held by ann@desk: new battery, 1 h 40 min left"
    assert read_lease("ann@desk", HOLD_RUN, "", 60).text == "held by ann@desk, 60 s left"
    run = read_lease("ci@rack", "r7", "", 60)
    assert run == Lease("ci@rack", "r7", 60)
    assert run.text == "leased by ci@rack for run r7"
