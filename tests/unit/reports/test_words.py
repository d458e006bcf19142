from __future__ import annotations

import pytest

from farm.reports.words import apart, clock, number, percent, plus_minus, seconds, size


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1024, "1 KiB"), (105 << 20, "105 MiB"),
     (int(1.9 * 2**30), "1.9 GiB"), (5 << 40, "5 TiB")],
)  # fmt: skip
def test_sizes(value: int | None, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (float("nan"), "-"), (3e-5, "30 µs"), (0, "0 ms"), (0.0123, "12.3 ms"),
     (0.9999, "1 s"), (3.44, "3.44 s"),
     (42.4, "42 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")],
)  # fmt: skip
def test_durations(value: float | None, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.0123, "0.0123"), (4.567, "4.57"), (322.4, "322"),
     (123456.0, "123456"), (2.61e8, "2.6e+08"), (3e-7, "3e-07")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_clock_interval_and_share() -> None:
    assert [clock(s) for s in (0, 75, 3675)] == ["0:00", "1:15", "1:01:15"]
    assert plus_minus(100, (97, 103)) == "±3 %"
    assert plus_minus(100, (99.9, 100.1)) == "±0.1 %"
    assert plus_minus(100, None) == ""
    assert [percent(v) for v in (None, 1, 0.934)] == ["-", "100 %", "93.4 %"]


@pytest.mark.parametrize(
    ("value", "bound", "shown"),
    [
        (0.99995, 1.0, ("0.99995", "1")),
        (0.5, 0.9, ("0.5", "0.9")),
        (1.0, 1.0, ("1", "1")),
        (None, 1.0, ("", "1")),
        (0.0300001, 0.03, ("0.0300001", "0.03")),
    ],
)
def test_a_number_can_be_told_from_its_bound(
    value: float | None, bound: float, shown: tuple[str, str]
) -> None:
    assert apart(value, bound) == shown
