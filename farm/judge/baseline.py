"""A cell against the same cell of a baseline run: better, worse, the same, or not to be told.

Where the baseline's artifact and runner are still here they ran beside the candidate, A B B A in
one lease, and speed is judged by the interval of the paired ratio. Where both arms would be the
same bytes, nothing changed that could have become slower: PASS, without a ratio. Else the numbers
of two nights are all there is: their difference holds drift that repetitions don't show, and the
interval is widened by what a device of that class drifts between sittings. What an interval can't
decide is INSUFFICIENT (or NOISY), never PASS.

| verdict      | when, with "allowed" the largest loss that the config accepts                  |
|--------------|--------------------------------------------------------------------------------|
| PASS         | the whole interval is better than the allowed loss                             |
| REGRESSED    | the whole interval is worse than the allowed loss                              |
| IMPROVED     | the whole interval is better than a gain of the same size                      |
| NOISY        | undecided, and one of the sides scatters by more than 5 %                      |
| INSUFFICIENT | undecided, or too few launches for an interval                                 |
| INCOMPARABLE | device, OS build, workload, threads, regime, definition or runner differ; in   |
|              | one lease only what the arms themselves can differ in                          |
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from farm.core.result import (
    BaselineReport,
    BaselineVerdict,
    CellResult,
    MetricComparison,
    Outcome,
    PerformanceReport,
)
from farm.core.rules.interval import MAX_SPREAD, spread
from farm.judge.performance import by_launch
from farm.judge.statistics import Ratio, median_interval, paired_interval, ratio_interval

#: How far a rate of one device moves between sittings although nothing changed. Phones:
#: 16-25 % measured. Others have no such record; what the spread guard calls quiet is taken.
DRIFT = {"phone": 0.25, "board": 0.05, "server": 0.05, "vm": 0.05}
#: Losses below these are nothing a user notices, whatever their ratio: times of small models are
#: a few milliseconds, and the kernel counts memory in steps.
LEAST_LOSS = {"ttft": 0.010, "load": 0.050, "peak_rss_bytes": 4 * 2**20}
#: Nor is a share below these: a load is one window a launch, and waits for storage.
LEAST_SHARE = {"load": 0.10}
#: Two fp32 references of one model and text agree to this share whatever the host.
_SAME_TEXT = 1e-3

#: Verdicts from the one that decides a cell to the one that decides least.
_ORDER: tuple[BaselineVerdict, ...] = (
    "REGRESSED",
    "INCOMPARABLE",
    "NOISY",
    "INSUFFICIENT",
    "PASS",
    "IMPROVED",
)
_OUTCOME: dict[BaselineVerdict, tuple[Outcome, str]] = {
    "REGRESSED": ("failed", "regressed"),
    "INCOMPARABLE": ("inconclusive", "incomparable"),
    "NOISY": ("inconclusive", "noisy"),
    "INSUFFICIENT": ("inconclusive", "insufficient"),
}
_SEVERITY: tuple[Outcome, ...] = ("passed", "inconclusive", "failed")


@dataclass(frozen=True, slots=True)
class _Allowed:
    """How much a metric may lose, and which direction is a loss."""

    #: Ratio new / old at which the loss is as large as allowed.
    worst: float
    #: Ratio at which the gain is as large.
    best: float


def compare_with_baseline(
    result: CellResult,
    baseline: CellResult | None,
    *,
    run_id: str,
    regress: float,
    unpaired: str = "",
) -> CellResult:
    """Compare a judged cell with the baseline's and adjust its outcome.

    Args:
        result: The cell now. One that never ran (errored, skipped) comes back unchanged.
        baseline: The same cell in the baseline run; None when it has none.
        run_id: Run of the baseline.
        regress: Largest loss that is accepted, as a fraction.
        unpaired: Why the baseline's artifact could not run beside the cell; empty when it did
            or the cell itself says why.
    """
    unpaired = unpaired or result.conditions.get("unpaired", "")
    if result.outcome in ("errored", "skipped"):
        return result
    if baseline is None:
        reason = "the baseline has no such cell"
        report = BaselineReport(run_id, "INSUFFICIENT", None, None, (), reason)
        return _adjusted(result, report, "no_baseline")
    method = _method(result)
    differing = _differences(result, baseline, same_lease=method != "sittings")
    if differing:
        reason = "; ".join(differing)
        return _adjusted(
            result, BaselineReport(run_id, "INCOMPARABLE", None, None, (), reason), "incomparable"
        )
    if method == "sittings":
        metrics = tuple(_metrics(result, baseline, regress))
    else:
        metrics = tuple(_same_lease(result, baseline, regress))
    if method == "identity":
        return _adjusted(result, _identical(metrics, run_id), "")
    if not metrics:
        reason = "no metric can be compared"
        report = BaselineReport(run_id, "INSUFFICIENT", None, None, (), reason, method)
        return _adjusted(result, report, "insufficient")
    worst = min(metrics, key=lambda m: _ORDER.index(m.verdict))
    why = _why(metrics, worst.verdict)
    if unpaired and why and method == "sittings":
        why += f"; not measured side by side: {unpaired}"
    report = BaselineReport(run_id, worst.verdict, worst.ratio, worst.ci95, metrics, why, method)
    if unpaired and method == "sittings" and "unpaired" not in result.flags:
        result = replace(
            result,
            flags=(*result.flags, "unpaired"),
            conditions={**result.conditions, "unpaired": unpaired},
        )
    return _adjusted(result, report, _OUTCOME.get(worst.verdict, ("passed", ""))[1])


def _method(result: CellResult) -> Literal["paired", "identity", "sittings"]:
    if "same_as_baseline" in result.flags:
        return "identity"
    arms = {sample.arm for report in result.performance for sample in report.samples}
    return "paired" if "baseline" in arms else "sittings"


def _identical(metrics: Sequence[MetricComparison], run_id: str) -> BaselineReport:
    reason = "artifact and runner are the baseline's, byte for byte: not measured against itself"
    worst: BaselineVerdict = min((m.verdict for m in metrics), key=_ORDER.index, default="PASS")
    why = _why(metrics, worst) if worst in _OUTCOME else reason
    verdict: BaselineVerdict = worst if worst in _OUTCOME else "PASS"
    return BaselineReport(run_id, verdict, None, None, tuple(metrics), why, "identity")


def _adjusted(result: CellResult, report: BaselineReport, flag: str) -> CellResult:
    """Attach the comparison; the outcome can only become worse by it."""
    outcome = _OUTCOME.get(report.verdict, ("passed", ""))[0]
    flags = result.flags if not flag or flag in result.flags else (*result.flags, flag)
    if _SEVERITY.index(outcome) <= _SEVERITY.index(result.outcome):
        return replace(result, baseline=report, flags=flags)
    reason = f"{report.verdict} against {report.run_id}: {report.reason}"
    if result.reason:
        reason = f"{reason}; {result.reason}"
    return replace(result, baseline=report, flags=flags, outcome=outcome, reason=reason)


def _differences(new: CellResult, old: CellResult, *, same_lease: bool) -> list[str]:
    """What makes the whole cells incomparable, in words."""
    places = (
        ("device", new.device.identity, old.device.identity),
        ("OS build", new.device.os_build, old.device.os_build),
        ("OS", new.device.os, old.device.os),
        ("instruction set", new.runner.isa, old.runner.isa),
    )
    pairs = (
        *(() if same_lease else places),
        ("runner", new.runner.name, old.runner.name),
        ("our code in the timed path", _own_code(new), _own_code(old)),
        ("backend", new.runner.backend_effective, old.runner.backend_effective),
        ("threads asked for", new.threads, old.threads),
    )
    return [
        f"{name} is {now}, was {then}"
        for name, now, then in pairs
        if now != then and now is not None and then is not None
    ]


def _own_code(result: CellResult) -> str | None:
    """Names of farm's code that ran in place of ExecuTorch's; None where that isn't known.

    Older reports name kernels alone, so what else was ours in their numbers isn't known.
    """
    own = result.runner.own_code
    if own is None:
        kernels = result.conditions.get("own_kernels")
        return None if kernels is None else f"{kernels} and what wasn't recorded"
    return ", ".join(own) or "none"


def _metrics(new: CellResult, old: CellResult, regress: float) -> Iterable[MetricComparison]:
    drift = DRIFT.get(new.conditions.get("device_class", ""), DRIFT["phone"])
    emulated = bool(new.device.emulated)
    before = {(p.metric, p.regime): p for p in old.performance}
    for report in new.performance:
        if report.regime != "warm" or not _is_gated(report.metric) or emulated:
            continue
        yield _speed(report, before.get((report.metric, "warm")), regress, drift)
    missing = {p.metric for p in old.performance if p.regime == "warm" and _is_gated(p.metric)} - {
        p.metric for p in new.performance
    }
    for metric in () if emulated else sorted(missing):
        yield MetricComparison(metric, "INCOMPARABLE", None, None, "no longer measured")
    memory = _memory(new, old, regress)
    perplexity = _perplexity(new, old, regress)
    yield from (found for found in (memory, perplexity) if found is not None)


def _same_lease(new: CellResult, old: CellResult, regress: float) -> Iterable[MetricComparison]:
    """Metrics of a cell whose baseline ran beside it; perplexity needs no second run."""
    for report in new.performance:
        has_arm = any(sample.arm == "baseline" for sample in report.samples)
        if report.regime == "warm" and _is_gated(report.metric) and not new.device.emulated:
            if has_arm:
                yield _paired(report, regress)
            elif "same_as_baseline" not in new.flags and report.median is not None:
                reason = "the baseline's artifact gave no such number"
                yield MetricComparison(report.metric, "INCOMPARABLE", None, None, reason)
    memory = new.memory.launches_bytes, new.memory.baseline_launches_bytes
    if all(memory):
        yield _peaks(*memory, regress)
    perplexity = _perplexity(new, old, regress)
    if perplexity is not None:
        yield perplexity


def _paired(report: PerformanceReport, regress: float) -> MetricComparison:
    if report.trust == "invalid" or report.median is None:
        reason = "the number is invalid or missing"
        return MetricComparison(report.metric, "INSUFFICIENT", None, None, reason)
    own, other = by_launch(report.samples), by_launch(report.samples, "baseline")
    before = median_interval(other).median
    higher = report.unit == "tok/s"
    allowed = _allowed(report.metric, before, regress, higher_is_better=higher)
    noisy = report.trust == "noisy" or (spread(other) or 0.0) > MAX_SPREAD
    # The number of pairs was chosen by looking at them.
    found = paired_interval(own, other, looked=True)
    return _decide(report.metric, found, allowed, noisy=noisy)


def _is_gated(metric: str) -> bool:
    name = metric.split("@")[0]
    return name in ("ttft", "load") or (name[:2] in ("pp", "tg") and name[2:].isdigit())


def _speed(
    new: PerformanceReport, old: PerformanceReport | None, regress: float, drift: float
) -> MetricComparison:
    if old is None:
        return MetricComparison(new.metric, "INCOMPARABLE", None, None, "the baseline has none")
    for name in ("unit", "threads", "affinity", "definition"):
        now, then = getattr(new, name), getattr(old, name)
        if now != then:
            reason = f"{name} is {now}, was {then}"
            return MetricComparison(new.metric, "INCOMPARABLE", None, None, reason)
    if "invalid" in (new.trust, old.trust) or new.median is None or old.median is None:
        side = "this" if new.trust == "invalid" or new.median is None else "the baseline's"
        reason = f"{side} number is invalid or missing"
        return MetricComparison(new.metric, "INSUFFICIENT", None, None, reason)
    higher = new.unit == "tok/s"
    allowed = _allowed(new.metric, old.median, regress, higher_is_better=higher)
    noisy = "noisy" in (new.trust, old.trust)
    found = ratio_interval(by_launch(new.samples), by_launch(old.samples), drift=drift)
    return _decide(new.metric, found, allowed, noisy=noisy)


def _memory(new: CellResult, old: CellResult, regress: float) -> MetricComparison | None:
    """Peak RSS. It doesn't drift with heat or load, so only its own scatter counts."""
    now, then = new.memory, old.memory
    if not now.launches_bytes or not then.launches_bytes:
        return None
    return _peaks(now.launches_bytes, then.launches_bytes, regress)


def _peaks(now: Sequence[int], then: Sequence[int], regress: float) -> MetricComparison:
    metric = "peak_rss_bytes"
    allowed = _allowed(metric, statistics.median(then), regress, higher_is_better=False)
    new, old = ({n: [float(v)] for n, v in enumerate(values)} for values in (now, then))
    return _decide(metric, ratio_interval(new, old), allowed, noisy=False)


def _perplexity(new: CellResult, old: CellResult, regress: float) -> MetricComparison | None:
    """Perplexity of the device: the same text through a deterministic program has no scatter."""
    now, then = _device_perplexity(new), _device_perplexity(old)
    if now is None or then is None:
        return None
    (tokens, reference, value), (old_tokens, old_reference, old_value) = now, then
    same_text = (
        reference is None
        or old_reference is None
        or abs(reference / old_reference - 1) <= _SAME_TEXT
    )
    if tokens != old_tokens or not same_text:
        reason = (
            f"{tokens} tokens, were {old_tokens}"
            if tokens != old_tokens
            else "eager_fp32 has another perplexity: the text or the model changed"
        )
        return MetricComparison("perplexity", "INCOMPARABLE", None, None, reason)
    ratio = value / old_value
    if ratio > 1 + regress:
        reason = f"perplexity {value:.4g}, was {old_value:.4g}"
        return MetricComparison("perplexity", "REGRESSED", ratio, None, reason)
    verdict: BaselineVerdict = "IMPROVED" if ratio < 1 / (1 + regress) else "PASS"
    return MetricComparison("perplexity", verdict, ratio, None)


def _device_perplexity(result: CellResult) -> tuple[int, float | None, float] | None:
    """Rows, perplexity of eager_fp32 where known, and perplexity of the device."""
    stages = result.correctness.stages if result.correctness else ()
    decode = [s for s in stages if s.path == "decode"]
    device = next((s for s in decode if s.to == "device_pte" and s.perplexity_to), None)
    if device is None or device.perplexity_to is None:
        return None
    reference = next((s.perplexity_from for s in decode if s.from_ == "eager_fp32"), None)
    return device.tokens, reference, device.perplexity_to


def _allowed(metric: str, old: float, regress: float, *, higher_is_better: bool) -> _Allowed:
    if higher_is_better:
        return _Allowed(worst=1 - regress, best=1 / (1 - regress) if regress < 1 else float("inf"))
    name = metric.split("@")[0]
    worst = 1 + max(regress, LEAST_LOSS.get(name, 0.0) / old, LEAST_SHARE.get(name, 0.0))
    return _Allowed(worst=worst, best=1 / worst)


def _decide(metric: str, found: Ratio, allowed: _Allowed, *, noisy: bool) -> MetricComparison:
    if found.ci95 is None:
        launches = min(found.launches)
        reason = f"{launches} launch has no interval"
        return MetricComparison(metric, "INSUFFICIENT", found.ratio, None, reason)
    low, high = found.ci95
    # Written for a rate; a time is the same with its sides exchanged.
    rate = allowed.worst < allowed.best
    worse = high < allowed.worst if rate else low > allowed.worst
    better = low > allowed.best if rate else high < allowed.best
    holds = low >= allowed.worst if rate else high <= allowed.worst
    verdict: BaselineVerdict
    if worse:
        verdict = "REGRESSED"
    elif better:
        verdict = "IMPROVED"
    elif holds:
        verdict = "PASS"
    else:
        verdict = "NOISY" if noisy else "INSUFFICIENT"
    reason = ""
    if verdict in ("REGRESSED", "NOISY", "INSUFFICIENT"):
        bound = f"at {'least' if rate else 'most'} {allowed.worst:.3g}x"
        reason = f"{found.ratio:.3g}x the baseline ({low:.3g} to {high:.3g}), wanted {bound}"
        if verdict != "REGRESSED":
            reason += f"; below {high / found.ratio - 1:.1%} these launches can't tell"
    return MetricComparison(metric, verdict, found.ratio, found.ci95, reason)


def _why(metrics: Iterable[MetricComparison], verdict: BaselineVerdict) -> str:
    """The reasons of the metrics that decided."""
    return "; ".join(
        f"{m.metric}: {m.reason}" for m in metrics if m.verdict == verdict and m.reason
    )
