"""A cell against the same cell of a baseline: verdicts, metric by metric. Part of report.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BaselineVerdict = Literal[
    "PASS", "SLOWER", "REGRESSED", "IMPROVED", "NOISY", "INCOMPARABLE", "INSUFFICIENT"
]


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One gated metric against the baseline's."""

    metric: str
    verdict: BaselineVerdict
    #: new / old; above 1 is faster for rates, slower for times.
    ratio: float | None
    ci95: tuple[float, float] | None
    reason: str = ""
    #: Largest loss that is accepted, as a ratio: below 1 for rates, above it for times and sizes.
    bound: float | None = None
    #: Chance of such a loss where the true one is no larger than accepted; None: nothing to test.
    p: float | None = None
    #: Pairs of launches, or launches of the smaller side.
    pairs: int = 0
    #: Smallest loss found with 95 % power, what is accepted included; 0.05 is 5 %.
    smallest_loss: float | None = None
    #: What a second sitting said: True, it found the loss too. None: there was none.
    confirmed: bool | None = None


@dataclass(frozen=True, slots=True)
class BaselineReport:
    """The cell against the baseline: the worst verdict and each metric's."""

    run_id: str
    verdict: BaselineVerdict
    ratio: float | None
    ci95: tuple[float, float] | None
    metrics: tuple[MetricComparison, ...] = ()
    reason: str = ""
    #: `paired`: both arms alternated in one lease. `identity`: both arms are the same bytes.
    #: `sittings`: the numbers of two nights, whose speeds are shown and never judged.
    method: Literal["paired", "identity", "sittings"] = "sittings"
