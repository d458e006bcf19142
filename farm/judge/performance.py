"""Samples of a device job to metrics with units, definitions, intervals and trust.

Rates and latencies are of the warm regime: warm-up windows are left out, and so is the load of
a job's first launch; after a push that one is reported apart, as first-ever.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from farm.core.result import PerformanceReport, Regime, SampleReport
from farm.core.runtime import DeviceRunResult, LaunchResult, Measure, Sample
from farm.core.spec import Gate
from farm.judge.gates import performance_gates
from farm.judge.guards import Guard, spread_guard, trust_of, window_guard
from farm.judge.statistics import median_interval, min_detectable_change, spread


@dataclass(frozen=True, slots=True)
class _Metric:
    """Values of one metric before they are judged."""

    name: str
    unit: str
    definition: str
    samples: tuple[SampleReport, ...]
    #: Shortest timed window behind the values, seconds; None where a window has no least length.
    shortest_s: float | None
    guards: tuple[Guard, ...] = ()
    regime: Regime = "warm"


def performance_reports(
    run: DeviceRunResult,
    measures: Sequence[Measure],
    gates: Sequence[Gate],
    guards: Sequence[Guard],
) -> list[PerformanceReport]:
    """Report every metric of a job.

    Args:
        run: What the device did.
        measures: What it was asked to do, each once.
        gates: Gates of the config; those on speed are decided here.
        guards: Guards of the cell as a whole; each metric adds its own.
    """
    if not run.launches:
        return []
    first = run.launches[0]
    timed = [s for launch in run.launches for s in launch.samples if not s.warmup]
    metrics = [*_rates(measures, timed), *_latencies(measures, timed), *_loads(run)]
    return [
        # Gates are about the warm regime; a first-ever figure is shown, not judged.
        _report(metric, first, gates if metric.regime == "warm" else (), guards)
        for metric in metrics
    ]


def peak_rss_by_launch(run: DeviceRunResult) -> tuple[int, ...]:
    """Peak RSS in bytes of each launch that timed something, where the kernel told."""
    timed = [launch for launch in run.launches if launch.samples]
    return tuple(x.peak_rss_bytes for x in timed or run.launches if x.peak_rss_bytes is not None)


def by_launch(samples: Iterable[SampleReport], arm: str = "candidate") -> dict[int, list[float]]:
    """Group the values of one arm by launch, as farm.judge.statistics wants them."""
    grouped: dict[int, list[float]] = {}
    for sample in samples:
        if sample.arm == arm:
            grouped.setdefault(sample.launch, []).append(sample.value)
    return grouped


def _report(
    metric: _Metric, first: LaunchResult, gates: Sequence[Gate], cell_guards: Sequence[Guard]
) -> PerformanceReport:
    grouped = by_launch(metric.samples)
    guards = [*cell_guards, *metric.guards]
    if metric.shortest_s is not None:
        guards.append(window_guard(metric.shortest_s))
    guards.append(spread_guard(spread(grouped) if grouped else None))
    estimate = median_interval(grouped) if grouped else None
    report = PerformanceReport(
        metric=metric.name,
        unit=metric.unit,
        regime=metric.regime,
        threads=first.threads,
        affinity=first.affinity,
        definition=metric.definition,
        median=None if estimate is None else estimate.median,
        ci95=None if estimate is None else estimate.ci95,
        min_detectable_change=min_detectable_change(grouped) if grouped else None,
        samples=metric.samples,
        gates=(),
        trust=trust_of(guards) if grouped else "invalid",
        guards={guard.name: guard.state for guard in guards},
    )
    return replace(report, gates=tuple(performance_gates(gates, report)))


def _rates(measures: Sequence[Measure], timed: Sequence[Sample]) -> list[_Metric]:
    metrics = []
    for measure in measures:
        windows = [sample for sample in timed if sample.metric == measure.name]
        expected = measure.decode or measure.prefill
        what = "one token at a time" if measure.decode else "in one prefill"
        depth = f" after {measure.depth} tokens of context" if measure.depth else ""
        metrics.append(
            _Metric(
                name=measure.name,
                unit="tok/s",
                definition=f"{expected} tokens {what}{depth}, per second of the window",
                samples=_values(windows, lambda s: s.tokens / s.duration_s),
                shortest_s=_shortest(windows),
                guards=(_token_count(windows, expected),),
            )
        )
    return metrics


def _latencies(measures: Sequence[Measure], timed: Sequence[Sample]) -> list[_Metric]:
    prefills = [measure for measure in measures if measure.prefill and not measure.decode]
    decodes = [measure for measure in measures if measure.decode]
    metrics = []
    for measure in prefills:
        windows = [s for s in timed if s.metric == measure.name and s.ttft_s is not None]
        after = f" after {measure.depth} tokens of context" if measure.depth else ""
        metrics.append(
            _Metric(
                name="ttft" if len(prefills) == 1 else f"ttft@{measure.name}",
                unit="s",
                definition=f"start of the prefill of {measure.prefill} token ids{after} until the "
                "first token is chosen; tokenising and loading not included",
                samples=_values(windows, lambda s: s.ttft_s or 0.0),
                shortest_s=None,
                guards=(_token_count(windows, measure.prefill),),
            )
        )
    for measure in decodes:
        windows = [s for s in timed if s.metric == measure.name and s.token_s]
        metrics.append(
            _Metric(
                name="inter_token" if len(decodes) == 1 else f"inter_token@{measure.name}",
                unit="s",
                definition=f"median time from token to token in a window of {measure.decode}",
                samples=_values(windows, lambda s: statistics.median(s.token_s)),
                shortest_s=_shortest(windows),
                guards=(_token_count(windows, measure.decode),),
            )
        )
    return metrics


def _loads(run: DeviceRunResult) -> list[_Metric]:
    """Load time. The first launch of a job is not warm: after a push it is a first-ever one."""
    loads = [
        SampleReport(value=launch.load_s, t_s=_start(launch), launch=number, rep=0)
        for number, launch in enumerate(run.launches)
        if launch.load_s is not None and launch.load_s > 0
    ]
    definition = "start of reading the program until its first method can run"
    metrics = []
    warm = tuple(load for load in loads if load.launch > 0)
    if warm:
        metrics.append(_Metric("load", "s", definition, warm, None))
    first = tuple(load for load in loads if load.launch == 0)
    if first and run.deployed.pushed_bytes > 0:
        metrics.append(_Metric("load", "s", definition, first, None, regime="first_ever"))
    return metrics


def _start(launch: LaunchResult) -> float:
    return min((sample.t_s for sample in launch.samples), default=0.0)


def _values(
    windows: Sequence[Sample], value: Callable[[Sample], float]
) -> tuple[SampleReport, ...]:
    """Values of the windows that took time at all; a clock that stood still measured nothing."""
    reports = [
        SampleReport(value=value(s), t_s=s.t_s, launch=s.launch, rep=s.rep, arm=s.arm)
        for s in windows
        if s.duration_s > 0
    ]
    return tuple(report for report in reports if 0 < report.value < math.inf)


def _shortest(windows: Sequence[Sample]) -> float | None:
    return min((sample.duration_s for sample in windows), default=None)


def _token_count(windows: Sequence[Sample], expected: int) -> Guard:
    wrong = {sample.tokens for sample in windows if sample.tokens != expected}
    for sample in windows:
        if sample.token_s and len(sample.token_s) != expected:
            wrong.add(len(sample.token_s))
    if wrong:
        counts = ", ".join(str(count) for count in sorted(wrong))
        return Guard("token_count", "flagged", f"{counts} tokens instead of {expected}")
    return Guard("token_count", "ok" if windows else "unavailable")
