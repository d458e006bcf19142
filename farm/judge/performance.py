"""Samples of a device job to metrics with units, definitions, intervals and trust.

Regimes are never pooled: a metric has one row for each regime that it was measured in. A load is
of its launch's regime; so is a window, unless a warm-up window of its metric came before it in the
same launch: then it is warm. Warm-up windows themselves are left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from farm.core.result import EnergyReport, PerformanceReport, SampleReport
from farm.core.rules.interval import spread
from farm.core.runtime import (
    Arm,
    DeviceRunResult,
    LaunchResult,
    Measure,
    Regime,
    Sample,
)
from farm.core.spec import Gate
from farm.judge.gates import performance_gates
from farm.judge.guards import Guard, spread_guard, trust_of, window_guard
from farm.judge.statistics import (
    found_with_power,
    median_interval,
    min_detectable_change,
    paired_interval,
)


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
    missing: Mapping[str, str] | None = None,
) -> list[PerformanceReport]:
    """Report every metric of a job.

    Args:
        run: What the device did.
        measures: What it was asked to do, each once.
        gates: Gates of the config; those on speed are decided here.
        guards: Guards of the cell as a whole; each metric adds its own.
        missing: Measures that weren't tried, and why, by name.
    """
    if not run.launches:
        return []
    why = missing or {}
    tried = [measure for measure in measures if measure.name not in why]
    # The first launch may be another program of the runner, which times nothing.
    last = run.launches[-1]
    windows = _windows(run)
    metrics = []
    for regime in ("warm", "cold", "first_ever"):
        found = [sample for sample, its in windows if its == regime]
        asked = [m for m in tried if regime == "warm" or any(s.metric == m.name for s in found)]
        latencies = _latencies(asked, found, last.exact_counts, tried)
        if last.definition:
            latencies = [metric for metric in latencies if metric.samples]
        named = [*_rates(asked, found, last.exact_counts), *latencies]
        metrics += [replace(metric, regime=regime) for metric in named]
    metrics += _loads(run)
    return [
        # Gates are about the warm regime; other figures are shown, not judged.
        _report(metric, run, gates if metric.regime == "warm" else (), guards)
        for metric in metrics
    ] + [_not_tried(measure, run, why[measure.name]) for measure in measures if measure.name in why]


def _windows(run: DeviceRunResult) -> list[tuple[Sample, Regime | None]]:
    """Timed windows and their regimes."""
    found: list[tuple[Sample, Regime | None]] = []
    for launch in run.launches:
        warmed = {sample.metric for sample in launch.samples if sample.warmup}
        found += [
            (sample, "warm" if sample.metric in warmed else launch.regime)
            for sample in launch.samples
            if not sample.warmup
        ]
    return found


def _not_tried(measure: Measure, run: DeviceRunResult, reason: str) -> PerformanceReport:
    """Row of a metric that the artifact can't have: no number, and why."""
    empty = _Metric(measure.name, "tok/s", _definition(measure), (), None)
    return replace(_report(empty, run, (), ()), reason=reason)


def peak_rss_by_launch(run: DeviceRunResult, arm: Arm = "candidate") -> tuple[int, ...]:
    """Peak RSS in bytes of each launch of an arm that timed warm windows, where it is known."""
    own = [launch for launch in run.launches if launch.arm == arm]
    timed = [launch for launch in own if any(s.metric != "load" for s in launch.samples)]
    warm = [launch for launch in timed if launch.regime == "warm"]
    return tuple(x.peak_rss_bytes for x in warm or timed or own if x.peak_rss_bytes is not None)


def energy_report(run: DeviceRunResult) -> EnergyReport:
    """Energy of decoding, per token, over all launches; of prefill where nothing was decoded.

    It is the whole device's: what it needs when idle is part of it.
    """
    # The number of a launch in which both arms worked in turn is the candidate's too.
    alone = [x for x in run.launches if x.arm == "baseline" and not x.in_turn]
    others = {s.launch for x in alone for s in x.samples}
    own = [launch for launch in run.telemetry if launch.launch not in others]
    parts = [part for launch in own for part in launch.energy]
    decode = [part for part in parts if part.metric.startswith("tg")]
    used = decode or parts
    tokens = sum(part.tokens for part in used)
    sources = list(dict.fromkeys(launch.energy_source for launch in run.telemetry))
    text = "; ".join(source for source in sources if source)
    if not tokens:
        return EnergyReport(None, reason=text or "nothing was timed")
    joules = sum(part.joules for part in used)
    seconds = sum(part.seconds for part in used)
    return EnergyReport(joules / tokens, source=text, mean_w=joules / seconds)


def by_launch(samples: Iterable[SampleReport], arm: Arm = "candidate") -> dict[int, list[float]]:
    """Group the values of one arm by launch, as farm.judge.statistics wants them."""
    grouped: dict[int, list[float]] = {}
    for sample in samples:
        if sample.arm == arm:
            grouped.setdefault(sample.launch, []).append(sample.value)
    return grouped


def _report(
    metric: _Metric, run: DeviceRunResult, gates: Sequence[Gate], cell_guards: Sequence[Guard]
) -> PerformanceReport:
    launch = run.launches[-1]
    looked = run.stop is not None and run.stop.looked
    grouped = by_launch(metric.samples)
    guards = [*cell_guards, *metric.guards]
    if metric.regime == "first_ever":
        guards.append(Guard("first_ever", "flagged"))
    if metric.shortest_s is not None:
        guards.append(window_guard(metric.shortest_s))
    guards.append(spread_guard(spread(grouped) if grouped else None))
    estimate = median_interval(grouped, looked=looked) if grouped else None
    report = PerformanceReport(
        metric=metric.name,
        unit=metric.unit,
        regime=metric.regime,
        threads=launch.threads,
        affinity=launch.affinity,
        definition="; ".join(filter(None, (metric.definition, launch.definition))),
        median=None if estimate is None else estimate.median,
        ci95=None if estimate is None else estimate.ci95,
        min_detectable_change=_detectable(metric, looked=looked),
        samples=metric.samples,
        gates=(),
        trust=trust_of(guards) if grouped else "invalid",
        guards={guard.name: guard.state for guard in guards},
    )
    return replace(report, gates=tuple(performance_gates(gates, report)))


def _detectable(metric: _Metric, *, looked: bool) -> float | None:
    """Smallest relative change that the samples would show; against a baseline arm, in pairs."""
    own, other = by_launch(metric.samples), by_launch(metric.samples, "baseline")
    if not own:
        return None
    if not other:
        return min_detectable_change(own)
    found = paired_interval(own, other, looked=looked)
    if found.error is None:
        return None
    return math.expm1(min(found_with_power(found.error, found.df, (0.025,)), 50.0))


def _rates(measures: Sequence[Measure], timed: Sequence[Sample], exact: bool) -> list[_Metric]:
    metrics = []
    for measure in measures:
        windows = [sample for sample in timed if sample.metric == measure.name]
        expected = measure.decode or measure.prefill
        metrics.append(
            _Metric(
                name=measure.name,
                unit="tok/s",
                definition=_definition(measure),
                samples=_values(windows, lambda s: s.tokens / s.duration_s),
                shortest_s=_shortest(windows),
                guards=(_token_count(windows, expected, exact),),
            )
        )
    return metrics


def _definition(measure: Measure) -> str:
    count = measure.decode or measure.prefill
    what = "one token at a time" if measure.decode else "in one prefill"
    depth = f" after {measure.depth} tokens of context" if measure.depth else ""
    return f"{count} tokens {what}{depth}, per second of the window"


def _latencies(
    measures: Sequence[Measure], timed: Sequence[Sample], exact: bool, every: Sequence[Measure]
) -> list[_Metric]:
    """Latencies of `measures`; named after their measure where `every` has several of a kind."""
    prefills = [measure for measure in measures if measure.prefill and not measure.decode]
    decodes = [measure for measure in measures if measure.decode]
    one_prefill = sum(bool(m.prefill and not m.decode) for m in every) == 1
    one_decode = sum(bool(m.decode) for m in every) == 1
    metrics = []
    for measure in prefills:
        windows = [s for s in timed if s.metric == measure.name and s.ttft_s is not None]
        after = f" after {measure.depth} tokens of context" if measure.depth else ""
        metrics.append(
            _Metric(
                name="ttft" if one_prefill else f"ttft@{measure.name}",
                unit="s",
                definition=f"start of the prefill of {measure.prefill} token ids{after} until the "
                "first token is chosen; tokenising and loading not included",
                samples=_values(windows, lambda s: s.ttft_s or 0.0),
                shortest_s=None,
                guards=(_token_count(windows, measure.prefill, exact),),
            )
        )
    for measure in decodes:
        windows = [s for s in timed if s.metric == measure.name and s.token_s]
        metrics.append(
            _Metric(
                name="inter_token" if one_decode else f"inter_token@{measure.name}",
                unit="s",
                definition=f"median time from token to token in a window of {measure.decode}",
                samples=_values(windows, lambda s: statistics.median(s.token_s)),
                shortest_s=_shortest(windows),
                guards=(_token_count(windows, measure.decode, exact),),
            )
        )
    return metrics


def _loads(run: DeviceRunResult) -> list[_Metric]:
    """Load times, by the regime of their launch."""
    definition = "start of reading the program until its first method can run"
    loads: dict[Regime, list[SampleReport]] = {"warm": [], "cold": [], "first_ever": []}
    for number, launch in enumerate(run.launches):
        if launch.regime is None or launch.load_s is None or launch.load_s <= 0:
            continue
        loads[launch.regime].append(
            SampleReport(launch.load_s, _start(launch), _number(launch, number), 0, launch.arm)
        )
    return [
        _Metric("load", "s", definition, tuple(found), None, regime=regime)
        for regime, found in loads.items()
        if found
    ]


def _number(launch: LaunchResult, otherwise: int) -> int:
    """Number of a launch as its windows say it: launches that were dropped leave gaps."""
    return launch.samples[0].launch if launch.samples else otherwise


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


def _token_count(windows: Sequence[Sample], expected: int, exact: bool) -> Guard:
    """Flag windows of another length; a runner that cuts its own prompts may be a tenth off."""
    margin = 0 if exact else expected // 10
    wrong = {x.tokens / x.passes for x in windows if abs(x.tokens / x.passes - expected) > margin}
    for sample in windows:
        if sample.token_s and len(sample.token_s) != expected * sample.passes:
            wrong.add(len(sample.token_s) / sample.passes)
    if wrong:
        counts = ", ".join(f"{count:g}" for count in sorted(wrong))
        return Guard("token_count", "flagged", f"{counts} tokens instead of {expected}")
    return Guard("token_count", "ok" if windows else "unavailable")
