"""What people are told while launches are repeated: rates so far, and the clock of the budget."""

from __future__ import annotations

from dataclasses import replace

from farm.core.runtime import LaunchPolicy, LaunchRequest, LaunchResult
from farm.site.job.progress import Told
from farm.site.job.rounds import Rounds, Ways
from tests.unit.core.rules.test_stopping import OURS, launched
from tests.unit.site.job.test_progress import JOB

#: Wants an interval that scattered launches never reach: the budget ends it.
POLICY = LaunchPolicy((OURS,), 2, 50, 100.0, 0.001, 0.02)


def told(policy: LaunchPolicy | None) -> list[Told]:
    """What is told of a job in the middle of each launch; a launch takes ten seconds."""
    now: list[float] = [0.0]
    heard: list[Told] = []
    job = replace(JOB, launches=(), policy=policy)

    class Standing:
        def __init__(self, rounds: Rounds) -> None:
            self.speeds, self.budget = rounds.speeds, rounds.budget

    def one(number: int, request: LaunchRequest) -> LaunchResult:
        now[0] += 4.0
        heard.append(Standing(rounds))
        now[0] += 6.0
        return launched(80.0 + number % 3)

    def never(*_: object) -> object:
        raise AssertionError

    ways = Ways(one, never, never, never)  # type: ignore[arg-type]
    rounds = Rounds(job, ways, fresh=False, clock=lambda: now[0])
    rounds.run()
    return heard


def test_the_clock_runs_within_a_launch_too() -> None:
    assert [standing.budget for standing in told(POLICY)] == [
        (10.0 * n + 4.0, 100.0) for n in range(10)
    ]


def test_rates_get_an_interval_from_the_second_launch_on() -> None:
    first, second, third, *_ = (standing.speeds for standing in told(POLICY))
    assert first == ()
    ((name, rate, half),) = second
    assert (name, round(rate, 9), half) == ("tg64", 80.0, None)
    ((name, rate, half),) = third
    assert (name, round(rate, 1)) == ("tg64", 80.5)
    assert half is not None
    assert 0.05 < half < 0.2  # of two launches, 80 and 81


def test_where_no_budget_ends_the_launches_there_is_no_clock() -> None:
    assert {standing.budget for standing in told(replace(POLICY, most=2))} == {None}
    assert told(None) == []
