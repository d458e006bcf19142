from __future__ import annotations

from dataclasses import replace

import pytest

from farm.core.result import CellResult
from tests.unit.judge.builders import facts
from tests.unit.judge.nights import compared, night, verdicts


def unchanged(**changes: object) -> CellResult:
    return replace(night(1, **changes), flags=("same_as_baseline",))  # type: ignore[arg-type]


def test_the_same_bytes_pass_where_the_device_gives_what_it_gave() -> None:
    result = compared(unchanged(speed=0.95), night(3), regress=0.02)
    assert result.baseline is not None
    assert (result.baseline.verdict, result.baseline.method) == ("PASS", "identity")
    assert "byte for byte" in result.baseline.reason
    assert (result.outcome, result.speed_decision, result.alarms) == ("passed", "passed", ())


@pytest.mark.parametrize("speed", [0.4, 2.0])
def test_the_same_bytes_at_another_speed_are_an_alarm_about_the_device(speed: float) -> None:
    result = compared(unchanged(speed=speed), night(3), regress=0.02)
    assert (result.outcome, result.speed_decision) == ("inconclusive", "undecided")
    assert verdicts(result)["tg32"] == "INCOMPARABLE"
    assert "regressed" not in result.flags
    assert any(a.startswith("device local: tg32: ") for a in result.alarms)
    assert "the device changed, not the artifact" in result.alarms[0]


def test_the_same_bytes_on_another_os_build_are_incomparable_and_an_alarm() -> None:
    old = night(3, device_facts=facts(os_build="b0"))
    result = compared(unchanged(), old, regress=0.02)
    assert result.baseline is not None
    assert (result.baseline.verdict, result.outcome) == ("INCOMPARABLE", "inconclusive")
    assert result.alarms == ("device local: OS build is b1, was b0",)


def test_the_history_of_a_quiet_device_says_more_than_a_bound_for_all() -> None:
    quiet = {"tg32": [80.0, 80.5, 79.5, 80.2, 79.8, 80.1], "pp64": [320.0]}
    assert verdicts(compared(unchanged(speed=0.85), night(3), past=quiet))["tg32"] == "INCOMPARABLE"
    loud = {"tg32": [60.0, 100.0, 75.0, 92.0, 64.0, 80.0], "pp64": [320.0]}
    assert verdicts(compared(unchanged(speed=0.7), night(3), past=loud))["tg32"] == "PASS"


def test_no_number_of_loud_nights_makes_half_of_a_rate_usual() -> None:
    wild = {"tg32": [20.0, 200.0, 80.0, 400.0, 10.0, 80.0], "pp64": [320.0]}
    found = compared(unchanged(speed=0.4), night(3), past=wild)
    assert verdicts(found)["tg32"] == "INCOMPARABLE"


def test_a_rate_of_the_same_bytes_that_nobody_measured_is_no_pass() -> None:
    same = unchanged()
    rows = tuple(row for row in same.performance if row.metric != "tg32")
    found = compared(replace(same, performance=rows), night(3))
    assert (verdicts(found)["tg32"], found.outcome) == ("INCOMPARABLE", "inconclusive")
    assert found.alarms == (), "the device is not to blame"


def test_the_same_bytes_without_a_number_are_no_pass() -> None:
    same = unchanged()
    rows = tuple(replace(row, trust="invalid") for row in same.performance)
    result = compared(replace(same, performance=rows), night(3))
    assert verdicts(result)["tg32"] == "INSUFFICIENT"
    assert result.outcome == "inconclusive"
    empty = compared(replace(same, performance=(), correctness=None), night(3))
    assert empty.outcome == "inconclusive"


def test_the_same_bytes_while_the_device_was_busy_are_no_alarm() -> None:
    same = unchanged(speed=0.5)
    rows = tuple(replace(row, trust="noisy") for row in same.performance)
    result = compared(replace(same, performance=rows), night(3))
    assert verdicts(result)["tg32"] == "NOISY"
    assert result.alarms == ()


def test_an_emulated_device_without_a_baseline_is_judged_by_its_gates() -> None:
    emulated = night(1, device_facts=facts(emulated=True, os_build="b1"))
    assert compared(emulated, None) is emulated
