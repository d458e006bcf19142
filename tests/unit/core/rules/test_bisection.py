"""The search for the revision that brought a loss, in simulation: builds are counted."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from farm.core.rules.bisection import (
    MOST_SITTINGS,
    Look,
    Observation,
    Search,
    Verdict,
    beliefs,
    evidence,
    next_step,
)
from farm.core.rules.interval import pair_statistics

#: Scatter of a launch, and pairs of launches in a sitting.
NOISE, PAIRS = 0.10, 8


def sitting(revision: int, first_bad: int, loss: float, draw: random.Random) -> Observation:
    """A sitting as a device gives it: launches of both arms in turn, each with its own scatter."""
    shift = math.log1p(-loss) if revision >= first_bad else 0.0
    logs = [draw.gauss(shift, NOISE) - draw.gauss(0, NOISE) for _ in range(PAIRS)]
    found = pair_statistics(logs)
    return Observation(revision, found.mean, found.error, found.df)


def searched(
    revisions: int, first_bad: int, loss: float, draw: random.Random, broken: dict[int, str]
) -> tuple[Verdict, Search]:
    search = Search(revisions, loss, (), broken)
    while True:
        step = next_step(search)
        if isinstance(step, Verdict):
            return step, search
        assert step.revision not in broken
        assert len(search.seen) < 200
        one = sitting(step.revision, first_bad, loss, draw)
        search = Search(revisions, loss, (*search.seen, one), broken)


def test_20_of_20_among_8_revisions_with_10_percent_noise_in_4_builds() -> None:
    draw = random.Random(1)
    for number in range(20):
        first_bad = 1 + number % 7
        found, search = searched(8, first_bad, 0.10, draw, {})
        assert (found.first_bad, found.maybe_none) == ((first_bad,), False)
        assert 1 + len(search.measured) <= 4, "the good revision is built too"


def test_it_errs_as_rarely_as_it_says_and_finds_that_there_is_nothing() -> None:
    draw = random.Random(2)
    wrong, sittings = 0, []
    for number in range(400):
        first_bad = 1 + number % 8  # 8: there is none
        found, search = searched(8, first_bad, 0.10, draw, {})
        truth = ((first_bad,), False) if first_bad < 8 else ((), True)
        wrong += (found.first_bad, found.maybe_none) != truth
        sittings.append(len(search.seen))
    assert wrong <= 2
    assert statistics.fmean(sittings) < 25, "few runs: it stops where it is sure"


def test_numbers_without_scatter_need_one_sitting_each() -> None:
    search = Search(8, 0.02)
    while isinstance(step := next_step(search), Look):
        shift = -0.03 if step.revision >= 5 else 0.001
        one = Observation(step.revision, shift, 0.0, 0)
        search = Search(8, 0.02, (*search.seen, one))
    assert (step.first_bad, step.maybe_none) == ((5,), False)
    assert step.belief > 0.999
    assert len(search.seen) == 3


def test_revisions_that_cannot_be_built_leave_a_range() -> None:
    found, search = searched(8, 5, 0.2, random.Random(3), {4: "no build", 5: "no build"})
    assert found.first_bad == (4, 5, 6)
    assert search.measured.isdisjoint({4, 5})
    every = dict.fromkeys(range(1, 8), "no build")
    nothing = next_step(Search(8, 0.2, (), every))
    assert isinstance(nothing, Verdict)
    assert nothing.maybe_none


def test_a_revision_that_stays_open_is_given_up_and_named_by_a_range() -> None:
    middle = math.log1p(-0.1) / 2  # as near to the loss as to none
    search = Search(3, 0.1)
    while isinstance(step := next_step(search), Look):
        shift = middle if step.revision == 1 else math.log1p(-0.1)
        search = Search(3, 0.1, (*search.seen, Observation(step.revision, shift, 0.01, 6)))
    assert step.first_bad == (1, 2)
    assert sum(one.revision == 1 for one in search.seen) == MOST_SITTINGS


def test_a_larger_loss_than_asked_for_is_more_evidence_not_less() -> None:
    found = [evidence([Observation(1, shift, 0.02, 6)], 0.1) for shift in (-0.1, -0.2, -0.5, -1.0)]
    assert found == sorted(found)
    assert sum(beliefs(Search(4, 0.1))) == pytest.approx(1.0)
