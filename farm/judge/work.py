"""Work counters: a changed number of instructions per token is seen without any statistics.

More instructions need not take longer (wider vectors do more in one), so a change is shown as
SLOWER, which passes, or as IMPROVED; how long it takes is what speeds are judged by.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from farm.core.comparison import BaselineVerdict, MetricComparison
from farm.core.result import CellResult
from farm.core.runtime import Arm, DeviceRunResult
from farm.core.work import Counted, WorkReport

#: Name of the comparison, before that of the windows: `instructions@tg64`.
METRIC = "instructions"
#: Change that is told.
CHANGED = 0.005
#: Difference between launches up to which counts are compared: threads that spin while they wait
#: count too.
EXACT = 0.002


def work_report(run: DeviceRunResult) -> WorkReport:
    """Sum up the counts of a job's warm windows."""
    counts = {arm: _counts(run, arm) for arm in ("candidate", "baseline")}
    ours, theirs = counts["candidate"], counts["baseline"]
    metrics = []
    for metric, launches in ours.items():
        other = theirs.get(metric)
        metrics.append(
            Counted(
                metric,
                statistics.median(launches),
                _scatter(launches),
                None if other is None else statistics.median(other),
                None if other is None else _scatter(other),
            )
        )
    if metrics:
        return WorkReport(tuple(metrics), "")
    timed = [x for x in run.launches if any(s.metric != "load" for s in x.samples)]
    reasons = dict.fromkeys(launch.uncounted for launch in timed)
    # Opened, and then read as nothing: somebody else used the counter at times.
    texts = [text or "the counter was shared, and missed a part" for text in reasons]
    return WorkReport((), "; ".join(texts) or "nothing was timed")


def compare_work(new: CellResult, old: CellResult) -> list[MetricComparison]:
    """Compare what both arms counted side by side; without a second arm, what both nights did.

    Counts don't drift, so those of two nights are as good.
    """
    before = {one.metric: one for one in old.work.metrics}
    found = []
    for one in new.work.metrics:
        then, then_scatter = one.baseline_per_token, one.baseline_scatter
        if then is None and one.metric in before:
            then, then_scatter = before[one.metric].per_token, before[one.metric].scatter
        if then is not None and then_scatter is not None:
            found.append(_compared(one, then, then_scatter))
    return [one for one in found if one is not None]


def told(report: WorkReport) -> str:
    """Say what was counted, or why nothing was; for the conditions of a result."""
    if report.reason:
        return f"not counted: {report.reason}"
    return ", ".join(f"{one.metric} {one.per_token:.6g} a token" for one in report.metrics)


def changed(metrics: Iterable[MetricComparison]) -> list[str]:
    """Say which counts changed."""
    names = (m for m in metrics if m.metric.startswith(f"{METRIC}@") and m.verdict != "PASS")
    return [f"{m.metric}: {m.reason}" for m in names]


def _compared(one: Counted, then: float, then_scatter: float) -> MetricComparison | None:
    """One metric; None where the counts of a side scatter by more than a change that is told."""
    if max(one.scatter, then_scatter) > EXACT:
        return None
    ratio = one.per_token / then
    verdict: BaselineVerdict = "PASS"
    reason = ""
    if abs(ratio - 1) > CHANGED:
        verdict = "SLOWER" if ratio > 1 else "IMPROVED"
        more = "more" if ratio > 1 else "fewer"
        reason = f"{abs(ratio - 1):.1%} {more} instructions a token, by exact counts"
    return MetricComparison(
        f"{METRIC}@{one.metric}", verdict, ratio, None, reason, 1 + CHANGED, confirmed=None
    )


def _counts(run: DeviceRunResult, arm: Arm) -> dict[str, list[float]]:
    """Instructions per token of each launch of an arm, by metric."""
    found: dict[str, list[float]] = {}
    for launch in run.launches:
        if launch.arm != arm:
            continue
        own: dict[str, list[float]] = {}
        for s in launch.samples:
            if s.instructions is not None and s.tokens and not s.warmup:
                own.setdefault(s.metric, []).append(s.instructions / s.tokens)
        for metric, values in own.items():
            found.setdefault(metric, []).append(statistics.median(values))
    return found


def _scatter(values: list[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)
