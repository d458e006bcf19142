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
    #: `sittings`: the numbers of two nights, widened by what devices drift between them.
    method: Literal["paired", "identity", "sittings"] = "sittings"
