"""Counted work: exact where launches agree, silent where they don't, told where it is absent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farm.core.result import CellResult
from farm.core.rules.scatter import scatter_of
from farm.core.runtime import Arm, DeviceRunResult, LaunchResult
from farm.core.telemetry import WindowEnergy
from farm.judge.performance import energy_report
from farm.judge.work import changed, compare_work, work_report
from tests.unit.judge.builders import Case, check_launch, facts, launch, run_of, telemetry
from tests.unit.judge.nights import compared
from tests.unit.reports.builders import judged_cell

PER_TOKEN = 1_000_000


def counted(
    number: int, per_token: float | None, arm: Arm = "candidate", *, in_turn: bool = True
) -> LaunchResult:
    made = launch(number)
    samples = tuple(
        replace(s, arm=arm, instructions=None if per_token is None else round(per_token * s.tokens))
        for s in made.samples
    )
    return replace(made, samples=samples, arm=arm, uncounted="", in_turn=in_turn)


def cell(ratio: float, *, jitter: float = 0.0, pairs: int = 4) -> CellResult:
    launches = [check_launch()]
    for n in range(1, pairs + 1):
        shake = 1 + jitter * (n % 2)
        launches.append(counted(n, ratio * shake * PER_TOKEN))
        launches.append(counted(n, PER_TOKEN, "baseline"))
    case = Case(launches=tuple(launches), device_facts=facts(os_build="b1"))
    return judged_cell(case, "local")


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.0, "PASS"), (1.004, "PASS"), (1.006, "SLOWER"), (0.99, "IMPROVED")]
)
def test_a_changed_amount_of_work_is_told_at_half_a_percent(ratio: float, verdict: str) -> None:
    result = cell(ratio)
    assert result.work.reason == ""
    assert result.conditions["instructions"].startswith("pp64 ")
    found = compared(result, cell(1.0))
    assert found.baseline is not None
    metrics = {m.metric: m for m in found.baseline.metrics}
    for name in ("instructions@pp64", "instructions@tg32"):
        assert metrics[name].verdict == verdict
        assert metrics[name].ratio == pytest.approx(ratio, abs=1e-6)
        assert (metrics[name].p, metrics[name].ci95) == (None, None)
    # More work is shown; it fails nothing and decides no speed.
    assert found.outcome == "passed"
    assert ("slower" in found.flags) == (verdict == "SLOWER")


def test_counts_that_scatter_are_not_compared() -> None:
    result = cell(1.05, jitter=0.01)
    assert result.work.metrics[0].scatter == pytest.approx(0.01, abs=1e-3)
    assert compare_work(result, cell(1.0)) == []


def test_nights_are_compared_where_one_arm_ran() -> None:
    def alone(per_token: float) -> CellResult:
        launches = (check_launch(), *(counted(n, per_token, in_turn=False) for n in (1, 2, 3)))
        return judged_cell(Case(launches=launches), "local")

    found = compare_work(alone(1.02 * PER_TOKEN), alone(PER_TOKEN))
    assert [m.verdict for m in found] == ["SLOWER", "SLOWER"]
    assert changed(found)[0] == (
        "instructions@pp64: 2.0% more instructions a token, by exact counts"
    )


def test_a_launch_in_turn_costs_what_two_did_and_has_its_energy() -> None:
    launches = []
    both: tuple[Arm, Arm] = ("candidate", "baseline")
    for n in range(1, 9):
        for arm in both:
            made = counted(n, PER_TOKEN, arm)
            samples = tuple(replace(s, t_s=10.0 * n + s.t_s) for s in made.samples)
            launches.append(replace(made, samples=samples))
    case = Case(launches=(check_launch(), *launches), device_facts=facts(os_build="b1"))
    result = judged_cell(case, "local")
    (row,) = [p for p in result.performance if (p.metric, p.regime) == ("tg32", "warm")]
    found = scatter_of(row)
    assert found is not None
    assert found.launch_s == pytest.approx(5.0)
    used = WindowEnergy("tg32", 64.0, 32, 4.0)
    said = replace(telemetry(3), energy=(used,), energy_source="a gauge")
    run = replace(run_of(said), launches=tuple(launches))
    assert energy_report(run).j_per_token == pytest.approx(2.0)
    alone = replace(launches[5], in_turn=False)  # the baseline's own launch 3
    assert energy_report(replace(run, launches=(alone,))).j_per_token is None


def test_absent_counts_have_a_reason() -> None:
    def of(*launches: LaunchResult) -> DeviceRunResult:
        return replace(run_of(), launches=launches)

    refused = replace(launch(1), uncounted="the kernel doesn't let this user count")
    assert work_report(of(refused)).reason == refused.uncounted
    assert "shared" in work_report(of(counted(1, None))).reason
    assert work_report(of()).reason == "nothing was timed"
    result = judged_cell(Case(), "local")
    assert result.conditions["instructions"] == "not counted: the runner doesn't count them"
    assert (result.work.metrics, compare_work(result, cell(1.0))) == ((), [])
