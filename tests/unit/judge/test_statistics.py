from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.core.rules.interval import spread
from farm.judge.statistics import (
    chance_above,
    found_with_power,
    least_shift,
    median_interval,
    min_detectable_change,
    paired_interval,
    ratio_interval,
    t_limit,
)

values = st.floats(1e-3, 1e5, allow_nan=False)
launches = st.dictionaries(
    st.integers(0, 20), st.lists(values, min_size=1, max_size=5), min_size=2, max_size=8
)


def sitting(
    random: np.random.Generator, launches: int, *, between: float, within: float, centre: float
) -> dict[int, list[float]]:
    """Rates as they come: launches scatter, repetitions scatter around their launch."""
    return {
        number: [
            centre * math.exp(shift + within * float(random.standard_normal())) for _ in range(3)
        ]
        for number, shift in enumerate(between * random.standard_normal(launches))
    }


def test_a_known_interval() -> None:
    samples = {0: [99.0, 100.0, 101.0], 1: [110.0], 2: [90.0, 90.0]}
    estimate = median_interval(samples)
    logs = [math.log(100), math.log(110), math.log(90)]
    half = 4.3027 * statistics.stdev(logs) / math.sqrt(3)
    assert estimate.median == pytest.approx(100)
    assert estimate.ci95 is not None
    assert estimate.ci95[1] == pytest.approx(math.exp(statistics.fmean(logs) + half), rel=1e-4)


def test_one_launch_has_no_interval() -> None:
    assert median_interval({0: [10.0, 11.0]}).ci95 is None
    assert min_detectable_change({0: [10.0, 11.0]}) is None
    assert ratio_interval({0: [1.0]}, {0: [1.0], 1: [1.0]}).ci95 is None
    assert spread({0: [10.0]}) is None


@pytest.mark.parametrize("bad", [{}, {0: []}, {0: [0.0]}, {0: [-1.0]}, {0: [math.inf]}])
def test_what_is_no_measurement_is_refused(bad: dict[int, list[float]]) -> None:
    with pytest.raises(ValueError, match="samples"):
        median_interval(bad)


@given(launches)
def test_the_interval_holds_the_median(samples: dict[int, list[float]]) -> None:
    estimate = median_interval(samples)
    assert estimate.ci95 is not None
    low, high = estimate.ci95
    assert low * (1 - 1e-9) <= estimate.median <= high * (1 + 1e-9)


@given(launches, st.floats(0.1, 10))
def test_units_do_not_matter(samples: dict[int, list[float]], factor: float) -> None:
    scaled = {launch: [factor * v for v in group] for launch, group in samples.items()}
    assert median_interval(scaled).median == pytest.approx(
        factor * median_interval(samples).median, rel=1e-6
    )
    first, second = spread(samples), spread(scaled)
    assert first is not None
    assert second == pytest.approx(first, rel=1e-6, abs=1e-9)
    assert ratio_interval(scaled, samples).ratio == pytest.approx(factor, rel=1e-6)


@given(launches, launches)
def test_swapping_sides_inverts_the_ratio(
    a: dict[int, list[float]], b: dict[int, list[float]]
) -> None:
    there, back = ratio_interval(a, b), ratio_interval(b, a)
    assert there.ratio == pytest.approx(1 / back.ratio, rel=1e-6)
    assert there.ci95 is not None
    assert back.ci95 is not None
    assert there.ci95[0] == pytest.approx(1 / back.ci95[1], rel=1e-6)


@settings(max_examples=30)
@given(launches)
def test_repeating_repetitions_adds_no_evidence(samples: dict[int, list[float]]) -> None:
    doubled = {launch: group * 2 for launch, group in samples.items()}
    assert median_interval(doubled) == median_interval(samples)


@pytest.mark.parametrize("count", [8, 16, 32])
def test_intervals_of_neighbouring_times_overlap_on_a_device_that_drifts(count: int) -> None:
    random = np.random.default_rng(count)
    hits, trials = 0, 300
    for _ in range(trials):
        drift = 0.0
        values = []
        for _ in range(2 * count):
            drift = 0.9 * drift + random.normal(0.0, 0.01)
            values.append(100.0 * math.exp(drift + random.normal(0.0, 0.02)))
        first, second = (
            median_interval({n: [value] for n, value in enumerate(part)}).ci95
            for part in (values[:count], values[count:])
        )
        assert first is not None
        assert second is not None
        hits += first[0] <= second[1] and second[0] <= first[1]
    assert hits / trials >= 0.93


@pytest.mark.parametrize("count", [3, 5, 10])
def test_the_median_interval_covers(count: int) -> None:
    random = np.random.default_rng(count)
    hits, trials = 0, 3000
    for _ in range(trials):
        samples = sitting(random, count, between=0.04, within=0.02, centre=100.0)
        interval = median_interval(samples).ci95
        assert interval is not None
        hits += interval[0] <= 100.0 <= interval[1]
    # From eight launches on the interval is ready for drift, of which there is none here.
    assert 0.935 <= hits / trials <= (0.975 if count < 8 else 0.99)


@pytest.mark.parametrize(("count", "ratio"), [(3, 1.0), (3, 0.8), (8, 1.1)])
def test_the_ratio_interval_covers(count: int, ratio: float) -> None:
    random = np.random.default_rng(count)
    hits, trials = 0, 3000
    for _ in range(trials):
        old = sitting(random, count, between=0.05, within=0.03, centre=40.0)
        new = sitting(random, count, between=0.05, within=0.03, centre=40.0 * ratio)
        interval = ratio_interval(new, old).ci95
        assert interval is not None
        hits += interval[0] <= ratio <= interval[1]
    assert 0.935 <= hits / trials <= 0.965


def test_ignoring_launches_would_not_cover() -> None:
    """Why the launch is the unit: pooled repetitions miss the truth far too often."""
    random = np.random.default_rng(7)
    hits, trials = 0, 1000
    for _ in range(trials):
        samples = sitting(random, 3, between=0.05, within=0.01, centre=100.0)
        pooled = {i: [v] for i, v in enumerate(v for group in samples.values() for v in group)}
        interval = median_interval(pooled).ci95
        assert interval is not None
        hits += interval[0] <= 100.0 <= interval[1]
    assert hits / trials < 0.85


def test_a_change_of_the_detectable_size_is_shown_with_its_power() -> None:
    """Of many such sets 95 % show the change: their interval leaves out 1."""
    random = np.random.default_rng(11)
    shown, claimed = 0, found_with_power(0.03 * math.sqrt(2 / 6), 10, (0.025,))
    for _ in range(2000):
        new, old = (
            {n: [float(v)] for n, v in enumerate(np.exp(shift + 0.03 * random.standard_normal(6)))}
            for shift in (claimed, 0.0)
        )
        interval = ratio_interval(new, old).ci95
        assert interval is not None
        shown += interval[0] > 1
    assert 0.93 <= shown / 2000 <= 0.97
    samples = {0: [100.0], 1: [104.0], 2: [97.0]}
    change = min_detectable_change(samples)
    assert change is not None
    assert change > 0.1


def test_two_looks_find_less_than_one() -> None:
    one, two = (found_with_power(0.01, 8, levels) for levels in ((0.05,), (0.05, 0.01)))
    assert 0 < one < two < 0.2
    assert found_with_power(0.0, 8, (0.05,)) == 0.0


@pytest.mark.parametrize(("level", "df"), [(0.025, 1), (0.001, 6), (1e-5, 38), (0.1, 400)])
def test_chances_are_those_of_the_statistic(level: float, df: int) -> None:
    from scipy import stats

    limit = t_limit(level, df)
    assert limit == pytest.approx(stats.t.isf(level, df))
    for shift in (0.0, 1.0, limit, limit + 3):
        assert chance_above(limit, df, shift) == pytest.approx(
            float(stats.nct.sf(limit, df, shift)), abs=1e-12
        )
    half = least_shift(lambda shift: chance_above(limit, df, shift) - 0.5, 1.0)
    assert chance_above(limit, df, half) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(("limit", "df", "shift"), [(2.3, 4, 51.57), (1.7, 50, 38.78304126109454)])
def test_a_loss_far_beyond_the_limit_is_found_for_sure(limit: float, df: int, shift: float) -> None:
    assert chance_above(limit, df, shift) == pytest.approx(1.0)
    assert chance_above(3.0, 50, -900.0) == pytest.approx(0.0, abs=1e-12)


def test_fewer_than_four_pairs_have_no_interval() -> None:
    ours, theirs = {n: [97.0 + n / 50] for n in range(3)}, {n: [100.0] for n in range(3)}
    found = paired_interval(ours, theirs)
    assert (found.ci95, found.error, found.launches) == (None, None, (3, 3))
    assert found.ratio == pytest.approx(0.9702, abs=1e-4)


def test_spread_sees_a_slowdown_inside_every_launch_but_not_one_outlier() -> None:
    throttling = {n: [11.0, 7.0, 3.5] for n in range(3)}
    outlier = {0: [10.0, 10.1, 5.0], 1: [10.0, 10.1, 10.0], 2: [10.1, 10.0, 10.0]}
    assert (spread(throttling) or 0) > 0.3
    assert (spread(outlier) or 0) < 0.02
