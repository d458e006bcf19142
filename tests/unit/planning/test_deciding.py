"""`regress: auto` and `farm plan`: what a budget decides, by the launches of earlier nights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from farm.core.flow.chain import ArtifactChain
from farm.core.plan import Plan
from farm.core.result import PerformanceReport, SampleReport
from farm.core.rules.scatter import Scatter, scatter_of, scatters, together
from farm.core.rules.tolerance import UNKNOWN, speed_tolerance
from farm.core.runtime import Arm
from farm.core.spec import RunSpec
from farm.judge.night import Against, compare_run
from farm.paths import history_db
from farm.planning.deciding import with_decisions
from farm.planning.planning import Prepared
from farm.run import ending
from farm.run.baselines import Baseline
from farm.state.history import History
from farm.ui import tables
from tests.unit.core import builders as b
from tests.unit.judge.nights import night, side_by_side
from tests.unit.reports.builders import report


def launches(sigma: float, count: int, *, paired: bool, drift: float = 0.0) -> PerformanceReport:
    """One metric, launched every 5 s."""
    random, samples = np.random.default_rng(1), []
    for n in range(count):
        arm: Arm = "baseline" if paired and n % 4 in (1, 2) else "candidate"
        value = 100 * math.exp(sigma * random.standard_normal() + drift * n)
        samples.append(SampleReport(value, 5.0 * n, n, 0, arm))
    row = next(p for p in side_by_side(1.0).performance if p.metric == "tg32")
    return replace(row, samples=tuple(samples), trust="ok")


@pytest.mark.parametrize("paired", [True, False])
def test_scatter_is_that_of_neighbours_and_no_drift(paired: bool) -> None:
    found = scatter_of(launches(0.03, 400, paired=paired, drift=0.002))
    assert found is not None
    assert found.sigma == pytest.approx(0.03, rel=0.15)
    assert found.launch_s == 5.0


def test_few_or_invalid_launches_show_none() -> None:
    assert scatter_of(launches(0.03, 3, paired=False)) is None
    assert scatter_of(replace(launches(0.03, 40, paired=False), trust="invalid")) is None
    assert scatter_of(replace(launches(0.03, 40, paired=False), regime="cold")) is None


def test_a_load_has_no_clock_of_its_own() -> None:
    windows = launches(0.03, 40, paired=False)
    load = replace(
        windows, metric="load", samples=tuple(replace(s, t_s=0.0) for s in windows.samples)
    )
    assert {name: one.launch_s for name, one in scatters([load, windows]).items()} == {
        "load": 5.0,
        "tg32": 5.0,
    }
    assert scatters([load]) == {}, "without a clock no budget is known to hold any launch"


def test_nights_are_joined() -> None:
    found = together([Scatter(0.01, 4.0), Scatter(0.07, 6.0), Scatter(0.05, 5.0)])
    assert found.sigma == pytest.approx(0.05)
    assert found.launch_s == 5.0


def planned(tmp_path: Path, spec: RunSpec, *sigmas: float) -> Plan:
    """The plan of a night after others whose decode launches scattered so much."""
    plan = b.plan(spec, b.device("a"), b.device("b"))
    index = History(history_db(tmp_path))
    for number, sigma in enumerate(sigmas):
        row = replace(launches(sigma, 200, paired=True), metric="tg64")
        cell = replace(side_by_side(1.0), cell_id=plan.cells[0].cell_id, performance=(row,))
        index.add(replace(report((cell,)), run_id=f"n{number}"), tmp_path, {})
    index.close()
    return with_decisions(spec, plan, tmp_path)


def test_without_a_past_night_nothing_is_known(tmp_path: Path) -> None:
    spec = b.run_spec()
    plan = with_decisions(spec, b.plan(spec, b.device("a")), tmp_path)
    assert plan.cells[0].decides == ()
    assert not history_db(tmp_path).exists(), "a plan writes nothing"
    assert speed_tolerance(replace(spec, regress_auto=True), plan.cells[0], "tg64") == UNKNOWN


def test_auto_takes_what_the_budget_decides_and_launches_tell_it_apart(tmp_path: Path) -> None:
    spec = replace(b.run_spec(), regress_auto=True)
    quiet = planned(tmp_path / "quiet", spec, 0.01, 0.01).cells[0]
    loud = planned(tmp_path / "loud", spec, 0.05).cells[0]
    (one,) = quiet.decides
    assert (one.metric, one.nights, one.pairs) == ("tg64", 2, 12)
    accepted = [speed_tolerance(spec, cell, "tg64") for cell in (quiet, loud)]
    assert 0.01 < accepted[0] < 0.05 < accepted[1] < 0.25
    assert accepted[0] == one.tolerance
    chain = ArtifactChain(quiet.artifact, spec, b.catalog(spec))
    chain.export, chain.tokens = b.export_result(), b.tokenized()
    policy = chain.job(quiet, "a", attempt=1, run_id="r", epoch=1).policy
    assert policy is not None
    assert policy.regress == accepted[0]


def test_a_plan_says_what_the_tolerance_of_the_config_needs(tmp_path: Path) -> None:
    spec = b.run_spec()
    plan = planned(tmp_path, spec, 0.03)
    (one,) = plan.cells[0].decides
    assert one.tolerance is not None
    assert one.tolerance > spec.regress
    assert one.needs_s is not None
    assert one.needs_s > spec.workload.budget_s
    console = Console(width=200, record=True)
    console.print(tables.plan(spec, plan, {}))
    text = console.export_text()
    assert f"{one.tolerance:.1%}" in text
    assert "2.0% needs" in text
    enough = planned(tmp_path / "quiet", spec, 0.002)
    console.print(tables.plan(spec, enough, {}))
    assert "2.0% is decided" in console.export_text()


def test_a_budget_of_two_pairs_decides_nothing_and_says_so(tmp_path: Path) -> None:
    spec = b.run_spec()
    short = replace(spec, workload=replace(spec.workload, budget_s=20.0))
    (one,) = planned(tmp_path, short, 0.01).cells[0].decides
    assert (one.pairs, one.tolerance) == (2, None)


def test_the_night_is_judged_by_what_auto_accepted(tmp_path: Path) -> None:
    spec = replace(b.run_spec(), regress_auto=True)
    plan = planned(tmp_path, spec, 0.05)
    cell_id = plan.cells[0].cell_id
    prepared = Prepared(spec, {}, b.catalog(spec), plan)
    old = replace(night(3), cell_id=cell_id)
    made = ending.against(prepared, Baseline("x", report((old,))), {}, {})
    assert made is not None
    accepted = made.accepted(cell_id, "tg64")
    assert accepted == plan.cells[0].decides[0].tolerance
    assert (made.accepted(cell_id, "pp64"), made.regress) == (UNKNOWN, 0.02)

    lossy = replace(side_by_side(0.93), cell_id=cell_id)
    against = Against("old", {cell_id: old}, 0.02, {}, {}, {cell_id: {"tg32": 0.1, "pp64": 0.01}})
    (result,) = compare_run([lossy], against, {cell_id: lossy})
    assert result.baseline is not None
    found = {m.metric: m.verdict for m in result.baseline.metrics}
    assert (found["tg32"], found["pp64"]) == ("SLOWER", "REGRESSED")
    assert "tg32 10.0%, " in result.conditions["regress"]
