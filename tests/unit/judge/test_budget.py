"""What a budget is said to decide, held against the simulation of benchmarks/verdicts.py."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.method.nights import Array, Scatter, estimate, new_method, old_method, pair_logs
from farm.core.result import CellResult
from farm.core.rules import interval
from farm.core.rules.interval import pair_statistics
from farm.judge.budget import Night, decidable, pairs_in
from farm.judge.performance import by_launch
from tests.unit.judge.nights import compared, side_by_side


@pytest.mark.parametrize(
    ("budget_s", "launch_s", "pairs"), [(120, 6, 10), (240, 6, 20), (120, 20, 2), (240, 20, 6),
                                        (10, 60, 2)]
)  # fmt: skip
def test_a_budget_holds_whole_blocks(budget_s: float, launch_s: float, pairs: int) -> None:
    assert pairs_in(budget_s, launch_s) == pairs


def test_two_pairs_decide_no_tolerance() -> None:
    assert decidable(0.01, Night(2, 4)) is None


def test_more_scatter_decides_less_and_more_pairs_more() -> None:
    found = [decidable(scatter, Night(10, 20)) or 0 for scatter in (0.005, 0.01, 0.03, 0.08)]
    assert found == sorted(found)
    assert found[0] < found[-1]
    assert (decidable(0.03, Night(20, 40)) or 1) < (decidable(0.03, Night(10, 20)) or 0)


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.08])
def test_what_is_said_to_be_decided_is_decided(sigma: float) -> None:
    """On launches that scatter and don't drift: clean cells pass, and twice the loss is found."""
    random = np.random.default_rng(7)
    shape = Night(10, 20)
    tolerance = decidable(sigma, shape)
    assert tolerance is not None

    def sitting(pairs: int, loss: float) -> Array:
        logs: Array = sigma * np.sqrt(2) * random.standard_normal((1500, 4, pairs))
        logs[:, 0] += np.log1p(-loss)
        return logs

    clean = new_method(sitting(10, 0), lambda again: sitting(20, 0)[again], tolerance)
    assert clean.undecided.mean() <= 0.05
    assert not clean.regressed.any()
    lossy = new_method(
        sitting(10, 2 * tolerance), lambda again: sitting(20, 2 * tolerance)[again], tolerance
    )
    assert lossy.first_metric.mean() >= 0.985


def test_the_old_rule_cries_wolf_where_the_new_one_does_not() -> None:
    """Sixty cells with two pairs each, as a budget of 120 s gives launches of 20 s."""
    random = np.random.default_rng(3)
    logs = pair_logs(random, Scatter("x", 0.05), series=1200, metrics=4, pairs=2)
    old, new = old_method(logs, 0.02), new_method(logs, lambda again: logs[again], 0.02)
    assert old.regressed.reshape(20, 60).any(axis=1).mean() > 0.5
    assert not new.regressed.any()
    assert new.undecided.all()


def test_the_simulation_computes_what_the_project_does() -> None:
    random = np.random.default_rng(2)
    logs = pair_logs(random, Scatter("x", 0.03), series=20, metrics=1, pairs=8)[:, 0]
    mean, error, df = estimate(logs, looked=True)
    for index, series in enumerate(logs):
        own = pair_statistics(list(series), looked=True)
        assert (mean[index], error[index], df) == pytest.approx(own)


@pytest.mark.parametrize("loss", [0.0, 0.04, 0.09, 0.2])
def test_simulated_nights_decide_as_real_ones_do(loss: float) -> None:
    """Two looks of four pairs, so that neither ends early; little scatter, so that they decide."""
    found = set()
    for seed in range(12):
        first = side_by_side(1 - loss, pairs=4, noise=0.003, seed=seed + 1)
        second = side_by_side(1 - loss, pairs=4, noise=0.003, seed=seed + 100)
        real = compared(first, first, 0.05, second=second).baseline
        assert real is not None
        judged = {m.metric: m for m in real.metrics}
        family = sum(m.p is not None for m in real.metrics)
        for metric in ("pp64", "tg32"):
            mine = new_method(
                _pairs(first, metric),
                lambda _cells, own=metric, cell=second: _pairs(cell, own),  # type: ignore[misc]
                0.05,
                comparisons=family,
            )
            verdict = judged[metric].verdict
            assert bool(mine.regressed[0]) == (verdict == "REGRESSED"), (seed, metric)
            open_ = verdict in ("INSUFFICIENT", "NOISY")
            assert bool(mine.undecided[0]) == open_, (seed, metric)
            found.add(verdict)
    assert found - {"SLOWER", "IMPROVED"}


def _pairs(cell: CellResult, metric: str) -> Array:
    row = next(p for p in cell.performance if (p.metric, p.regime) == (metric, "warm"))
    own, other = by_launch(row.samples), by_launch(row.samples, "baseline")
    return np.array(interval.pair_logs(own, other))[np.newaxis, np.newaxis]
