"""How much the launches of a metric scatter, and how long one takes, by what a run measured. Pure.

What pairs see is told: neighbours are compared, so that a slow drift of the device hardly counts.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from farm.core.result import PerformanceReport
from farm.core.rules.interval import LEAST_PAIRS, launch_logs, pair_logs, pair_statistics
from farm.core.runtime import Arm


@dataclass(frozen=True, slots=True)
class Scatter:
    """Of one metric in one run."""

    #: Standard deviation of the logarithm of a launch's value.
    sigma: float
    #: From the start of one launch to that of the next, seconds.
    launch_s: float


def scatters(performance: Iterable[PerformanceReport]) -> dict[str, Scatter]:
    """Return the scatter of each warm metric of a cell, by metric.

    Launches are as far apart as its windows say; a load has no clock of its own.
    """
    each = {row.metric: one for row in performance if (one := scatter_of(row)) is not None}
    launch_s = max((one.launch_s for one in each.values()), default=0.0)
    if launch_s <= 0:
        return {}
    return {metric: replace(one, launch_s=launch_s) for metric, one in each.items()}


def scatter_of(report: PerformanceReport) -> Scatter | None:
    """Return the scatter of a warm metric; None where too few launches show any."""
    if report.regime != "warm" or report.trust == "invalid":
        return None
    own, other = _by_launch(report, "candidate"), _by_launch(report, "baseline")
    # Two arms that worked in turn share a launch, which costs what two did.
    shared = 2 if own.keys() & other.keys() else 1
    starts = sorted(
        min(s.t_s for s in report.samples if s.launch == number)
        for number in {s.launch for s in report.samples}
    )
    if len(starts) < LEAST_PAIRS:
        return None
    launch_s = statistics.median(b - a for a, b in itertools.pairwise(starts)) / shared
    if min(len(own), len(other)) >= LEAST_PAIRS:
        logs = pair_logs(own, other)
        error = pair_statistics(logs).error
        return Scatter(error * math.sqrt(len(logs) / 2), launch_s)
    if len(own) < LEAST_PAIRS:
        return None
    steps = [b - a for a, b in itertools.pairwise(launch_logs(own))]
    return Scatter(math.sqrt(statistics.fmean(step**2 for step in steps) / 2), launch_s)


def together(found: list[Scatter]) -> Scatter:
    """Join what several nights showed: the root of the mean square, and the usual time."""
    sigma = math.sqrt(statistics.fmean(one.sigma**2 for one in found))
    return Scatter(sigma, statistics.median(one.launch_s for one in found))


def _by_launch(report: PerformanceReport, arm: Arm) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for sample in report.samples:
        if sample.arm == arm:
            found.setdefault(sample.launch, []).append(sample.value)
    return found
