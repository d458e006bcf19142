from __future__ import annotations

import pytest

from farm.core.flow.second import for_longer
from farm.core.rules.launches import CellLaunches, cell_launches
from farm.core.rules.sustained import Part, course, repetitions
from farm.core.runner import OWN
from farm.core.runtime import DeviceJob
from farm.core.spec import RunSpec, Workload
from tests.unit.core.builders import tokenized


def windows(*levels: tuple[float, float]) -> list[Part]:
    """Windows of 16 tokens: (seconds, tok/s) in turn."""
    found: list[Part] = []
    t = 0.0
    for seconds, rate in levels:
        end = t + seconds
        while t < end:
            found.append(Part(t, 16, 16 / rate))
            t += 16 / rate
    return found


def test_a_clock_capped_after_two_minutes_is_seen_where_it_happened() -> None:
    found = course(windows((120, 11.0), (480, 3.5)))
    assert found.seconds == pytest.approx(600, abs=10)
    assert found.first_tok_s == pytest.approx(11.0)
    assert found.first_s == 60
    assert found.steady_tok_s == pytest.approx(3.5)
    assert found.settled
    assert found.throttled_after_s == pytest.approx(120, abs=12)
    assert len(found.curve) == 60


def test_a_device_that_keeps_its_rate_never_slows_and_one_odd_moment_is_no_cap() -> None:
    steady = course(windows((600, 20.0)))
    assert (steady.throttled_after_s, steady.settled) == (None, True)
    dip = course(windows((200, 20.0), (35, 10.0), (365, 20.0)))
    assert dip.throttled_after_s is None


def test_a_device_that_goes_on_falling_has_not_settled() -> None:
    falling = course(windows(*((30.0, 20.0 - n) for n in range(18))))
    assert not falling.settled
    assert falling.throttled_after_s is not None


def test_a_short_run_has_a_short_first_part() -> None:
    found = course(windows((4, 100.0), (6, 40.0)))
    assert found.first_s == pytest.approx(1.0, abs=0.1)
    assert found.throttled_after_s == pytest.approx(4.0, abs=0.5)
    assert course([Part(0.0, 16, 1.0)]).settled is False
    with pytest.raises(ValueError, match="no windows"):
        course([])


def test_work_is_fixed_by_the_rate_before() -> None:
    assert repetitions(64, 32.0, 600.0) == 300
    assert repetitions(64, 0.01, 10.0) == 1


def launches(
    sustained_s: float | None, *, sweeps: bool = True, paired: bool = False
) -> CellLaunches:
    workload = Workload(prefill=(64,), decode=(32, 64), sustained_s=sustained_s)
    spec = RunSpec("t", (), (), workload=workload)
    reference = tokenized()
    return cell_launches(spec, reference, threads=1, max_context=512, paired=paired, sweeps=sweeps)


def test_a_cell_decodes_on_and_on_where_it_is_asked_for_and_can() -> None:
    long = launches(600.0, paired=True).sustained
    assert long is not None
    assert [measure.name for measure in long.request.measures] == ["tg32"]
    assert (long.seconds, long.request.arm) == (600.0, "candidate")
    assert long.request.timeout_s >= 3000, "a device that throttles takes longer"
    assert launches(None).sustained is None
    assert launches(600.0, sweeps=False).sustained is None, "one prompt and one reply each"


def test_a_second_sitting_confirms_ratios_and_decodes_no_longer() -> None:
    long = launches(600.0).sustained
    job = DeviceJob("c", 1, 1, "r", "c", "d", OWN, (), (), sustained=long)
    assert for_longer(job).sustained is None
