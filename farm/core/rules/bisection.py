"""Which revision brought a loss: probabilistic bisection with sequential tests. Pure.

The first bad of n revisions is one of 1..n-1, or there is none; each observation holds a revision
against the good one and shifts what is believed of all of them (Waeber, Frazier and Henderson,
"Bisection search with noisy responses", SIAM J. Control Optim. 2013). A build costs far more than
a sitting, so a revision is measured until it is decided, as Wald's sequential test does, before
the next one is built: the one that halves what is left.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Chance that a search may end at a wrong revision.
ERROR = 0.002
#: Sittings of one revision after which it counts as one that can't be told.
MOST_SITTINGS = 12
#: Evidence of what has no scatter, and the most that any observation gives.
_SURE = 50.0


@dataclass(frozen=True, slots=True)
class Observation:
    """One sitting of a revision beside the good one."""

    revision: int
    #: Logarithm of revision / good, written so that below 0 is worse.
    shift: float
    #: Standard error of the shift; 0: a number without scatter, such as a perplexity.
    error: float
    #: Degrees of freedom of the error; 0 where there is none.
    df: int


@dataclass(frozen=True, slots=True)
class Search:
    """What is known so far."""

    #: Number of revisions; 0 is the good one.
    revisions: int
    #: Loss that is looked for, as a share: a revision nearer to it than to none is bad.
    loss: float
    seen: tuple[Observation, ...] = ()
    #: Revisions that can't be told good or bad, and why.
    broken: Mapping[int, str] | None = None

    @property
    def measured(self) -> frozenset[int]:
        """Revisions that were built and measured."""
        return frozenset(one.revision for one in self.seen)


@dataclass(frozen=True, slots=True)
class Look:
    """Measure this revision (once more)."""

    revision: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a search."""

    #: The first bad one is among these; more than one where those between can't be told.
    first_bad: tuple[int, ...]
    #: Whether none of them being bad fits as well.
    maybe_none: bool
    #: What is believed of it, 0..1.
    belief: float


def evidence(seen: Sequence[Observation], loss: float) -> float:
    """Return the log likelihood ratio, bad over good, of the sittings of one revision."""
    if not seen:
        return 0.0
    mean, error, df = _pooled(seen)
    bad = math.log1p(-loss)
    to_good, to_bad = max(0.0, -mean), max(0.0, mean - bad)
    if error == 0:
        return math.copysign(_SURE, to_good - to_bad)
    found = _log_density(to_bad / error, df) - _log_density(to_good / error, df)
    return max(-_SURE, min(_SURE, found))


def beliefs(search: Search) -> list[float]:
    """Return how likely each revision from 1 on is the first bad one, and last: that none is."""
    count = search.revisions
    found = [
        evidence([one for one in search.seen if one.revision == revision], search.loss)
        for revision in range(count)
    ]
    logs = [sum(found[first:]) for first in range(1, count + 1)]
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    return [weight / sum(weights) for weight in weights]


def next_step(search: Search) -> Look | Verdict:
    """Return which revision to measure next, or where the loss came in.

    Raises:
        ValueError: There is no revision besides the good one.
    """
    if search.revisions < 2:
        raise ValueError("a search needs the good revision and one more")
    told = {**dict(search.broken or {}), **_worn_out(search)}
    usable = [one for one in range(1, search.revisions) if one not in told]
    belief = beliefs(search)
    group = max(_groups(search.revisions, usable), key=lambda g: sum(belief[k - 1] for k in g))
    mass = sum(belief[k - 1] for k in group)
    if mass >= 1 - ERROR:
        bad = tuple(k for k in group if k < search.revisions)
        return Verdict(bad, search.revisions in group, mass)
    if not usable:
        return Verdict(tuple(range(1, search.revisions)), True, 1.0)

    def doubt(revision: int) -> float:
        """How near to a coin's toss it is that a revision is bad."""
        return abs(sum(belief[:revision]) - 0.5)

    open_ = [one for one in usable if doubt(one) < 0.5 - ERROR / 2]
    again = [one for one in open_ if one in search.measured]
    built = [one for one in usable if one in search.measured]
    return Look(min(again or open_ or built or usable, key=doubt))


def is_bad(search: Search, revision: int) -> bool | None:
    """Tell what the sittings of a revision alone say of it; None: nothing yet."""
    found = evidence([one for one in search.seen if one.revision == revision], search.loss)
    if abs(found) < math.log(1 / ERROR - 1):
        return None
    return found > 0


def _worn_out(search: Search) -> dict[int, str]:
    counts = {one: 0 for one in search.measured}
    for one in search.seen:
        counts[one.revision] += 1
    return {
        one: f"undecided after {count} sittings"
        for one, count in counts.items()
        if count >= MOST_SITTINGS and is_bad(search, one) is None
    }


def _groups(count: int, usable: Sequence[int]) -> list[list[int]]:
    """First bad revisions that no measurement tells apart; `count` stands for none."""
    ends = [*usable, count]
    starts = [1, *(one + 1 for one in usable)]
    return [list(range(a, b + 1)) for a, b in zip(starts, ends, strict=True) if a <= b]


def _pooled(seen: Sequence[Observation]) -> tuple[float, float, int]:
    """Mean, its standard error and degrees of freedom: sittings scatter too, not only launches."""
    mean = statistics.fmean(one.shift for one in seen)
    if all(one.error == 0 for one in seen):
        return mean, 0.0, 0
    inside = math.sqrt(sum(one.error**2 for one in seen)) / len(seen)
    df = max(1, sum(one.df for one in seen))
    if len(seen) < 3:
        return mean, inside, df
    between = statistics.stdev(one.shift for one in seen) / math.sqrt(len(seen))
    return (mean, between, len(seen) - 1) if between > 2 * inside else (mean, inside, df)


def _log_density(t: float, df: int) -> float:
    """Logarithm of the density of Student's t, up to a constant."""
    return -(df + 1) / 2 * math.log1p(t * t / df)
