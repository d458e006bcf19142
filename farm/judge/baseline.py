"""A cell against the same cell of a baseline run: which of its numbers say what.

Where the baseline's artifact and runner are still here they ran beside the candidate, A B B A in
one lease, and speed is judged by the interval of the paired ratio (farm.judge.verdicts). Where both
arms would be the same bytes, the device is what is tested (farm.judge.unchanged). Else the numbers
of two nights are all there is: devices drift between sittings by more than what is looked for, so
their speeds are shown and never judged; perplexity and memory, which don't drift, are. What can't
be decided is never PASS. Losses are only suspected here: farm.judge.night decides about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from farm.core.comparison import BaselineReport, BaselineVerdict, MetricComparison
from farm.core.result import CellResult, PerformanceReport
from farm.core.rules.gates import is_gated
from farm.core.rules.window_turns import IN_TURN
from farm.judge.comparable import changed_system, differences, way_of_measuring
from farm.judge.guards import CAPS_IN_TURN
from farm.judge.unchanged import Past, compare_unchanged
from farm.judge.verdicts import compare_pairs, compare_peaks
from farm.judge.work import changed, compare_work

Method = Literal["paired", "identity", "sittings"]

#: Two fp32 references of one model and text agree to this share whatever the host.
_SAME_TEXT = 1e-3
#: Verdicts from the one that decides a cell to the one that decides least.
ORDER: tuple[BaselineVerdict, ...] = (
    "REGRESSED",
    "INCOMPARABLE",
    "NOISY",
    "INSUFFICIENT",
    "SLOWER",
    "PASS",
    "IMPROVED",
)
#: Verdicts with which a cell doesn't pass.
OPEN = ("REGRESSED", "INCOMPARABLE", "NOISY", "INSUFFICIENT")


def compare_cell(
    new: CellResult,
    old: CellResult | None,
    *,
    run_id: str,
    regress: float,
    accepted: Callable[[str], float] | None = None,
    unpaired: str = "",
    past: Past | None = None,
) -> CellResult:
    """Attach a comparison with the baseline; the outcome is farm.judge.night's to adjust.

    Args:
        new: The cell now. One that never ran (errored, skipped) comes back unchanged.
        old: The same cell in the baseline run; None when it has none.
        run_id: Run of the baseline.
        regress: Largest loss that is accepted, as a fraction.
        accepted: The same of a speed, by its metric; None: `regress` holds for speeds too.
        unpaired: Why the baseline's artifact could not run beside the cell; empty when it did
            or the cell itself says why.
        past: What the same bytes gave on this device in earlier nights.
    """
    if new.outcome in ("errored", "skipped"):
        return new
    if old is None:
        if new.device.emulated:
            return new  # nothing of it would be compared but what its own gates judge
        reason = "the baseline has no such cell"
        report = BaselineReport(run_id, "INSUFFICIENT", None, None, (), reason)
        return _with_flag(replace(new, baseline=report), "no_baseline")
    method = _method(new)
    alarms = [f"device {new.device.name}: {change}" for change in changed_system(new, old)]
    new = replace(new, alarms=(*new.alarms, *alarms))
    differing = differences(new, old, same_lease=method == "paired")
    if differing:
        reason = "; ".join(differing)
        report = BaselineReport(run_id, "INCOMPARABLE", None, None, (), reason, method)
        return replace(new, baseline=report)
    if method == "paired":
        speeds = accepted or (lambda metric: regress)
        speed = _paired(new, old, regress, speeds)
        metrics = [*speed, *compare_work(new, old), *_perplexity(new, old, regress)]
        return replace(new, baseline=fold(run_id, metrics, method))
    if method == "identity":
        rates, alarms = ([], []) if new.device.emulated else compare_unchanged(new, old, past or {})
        work = compare_work(new, old)
        alarms += [f"device {new.device.name}: the same bytes: {text}" for text in changed(work)]
        report = _identical(run_id, new, [*rates, *work, *_perplexity(new, old, regress)])
        return replace(new, baseline=report, alarms=(*new.alarms, *alarms))
    why = unpaired or new.conditions.get("unpaired", "")
    peaks = _peaks(new.memory.launches_bytes, old.memory.launches_bytes, regress)
    others = [*peaks, *_perplexity(new, old, regress)]
    metrics = [*_nights(new, old), *compare_work(new, old), *others]
    report = fold(run_id, metrics, method)
    if why:
        report = replace(report, reason=f"not measured side by side: {why}")
        new = replace(new, conditions={**new.conditions, "unpaired": why})
        new = _with_flag(new, "unpaired")
    return replace(new, baseline=report)


def fold(run_id: str, metrics: Sequence[MetricComparison], method: Method) -> BaselineReport:
    """Fold metrics into a cell's comparison: the worst verdict, and the reasons for it."""
    if not metrics:
        reason = "no metric can be compared"
        return BaselineReport(run_id, "INSUFFICIENT", None, None, (), reason, method)
    worst = min(metrics, key=lambda m: ORDER.index(m.verdict))
    why = "; ".join(
        f"{m.metric}: {m.reason}" for m in metrics if m.verdict == worst.verdict and m.reason
    )
    return BaselineReport(
        run_id, worst.verdict, worst.ratio, worst.ci95, tuple(metrics), why, method
    )


def _method(result: CellResult) -> Method:
    if "same_as_baseline" in result.flags:
        return "identity"
    arms = {sample.arm for report in result.performance for sample in report.samples}
    return "paired" if "baseline" in arms else "sittings"


def _with_flag(result: CellResult, flag: str) -> CellResult:
    return result if flag in result.flags else replace(result, flags=(*result.flags, flag))


def _identical(run_id: str, new: CellResult, metrics: Sequence[MetricComparison]) -> BaselineReport:
    report = fold(run_id, metrics, "identity")
    if report.verdict in OPEN and (metrics or not new.device.emulated):
        return replace(report, ratio=None)
    reason = "artifact and runner are the baseline's, byte for byte: not measured against itself"
    return replace(report, verdict="PASS", ratio=None, ci95=None, reason=reason)


def _speeds(result: CellResult) -> list[PerformanceReport]:
    """Warm metrics that are held against a baseline; none of an emulated device."""
    if result.device.emulated:
        return []
    return [p for p in result.performance if p.regime == "warm" and is_gated(p.metric)]


def _paired(
    new: CellResult, old: CellResult, regress: float, accepted: Callable[[str], float]
) -> Iterable[MetricComparison]:
    before = {p.metric for p in _speeds(old) if p.median is not None}
    # A control group may be one arm's alone: its quota is no property of the device.
    alike = new.conditions.get("turns") == IN_TURN and new.conditions.get("cgroup_throttled") == "0"
    shared = CAPS_IN_TURN if alike else ()
    for report in _speeds(new):
        if any(sample.arm == "baseline" for sample in report.samples):
            yield compare_pairs(report, accepted(report.metric), shared)
        elif report.median is not None:
            reason = "the baseline's artifact gave no such number"
            yield MetricComparison(report.metric, "INCOMPARABLE", None, None, reason)
        elif report.metric in before:  # a context that shrank, a runner that tells less
            reason = f"no longer measured: {report.reason or 'there is no number'}"
            yield MetricComparison(report.metric, "INCOMPARABLE", None, None, reason)
    told = {report.metric for report in _speeds(new)}
    yield from _lost(sorted(before - told) if not new.device.emulated else ())
    yield from _peaks(new.memory.launches_bytes, new.memory.baseline_launches_bytes, regress)


def _nights(new: CellResult, old: CellResult) -> Iterable[MetricComparison]:
    """Speeds of two nights: shown, never judged."""
    before = {p.metric: p for p in _speeds(old)}
    for report in _speeds(new):
        earlier = before.pop(report.metric, None)
        why = way_of_measuring(report, earlier)
        if why or earlier is None:
            yield MetricComparison(report.metric, "INCOMPARABLE", None, None, why)
            continue
        both = report.median is not None and earlier.median is not None
        ratio = report.median / earlier.median if report.median and earlier.median else None
        reason = "numbers of two nights are never judged" if both else "there is no number"
        yield MetricComparison(report.metric, "INSUFFICIENT", ratio, None, reason)
    yield from _lost(() if new.device.emulated else sorted(before))


def _lost(metrics: Iterable[str]) -> Iterable[MetricComparison]:
    """What the baseline has and tonight nobody could compare: it never reads as unchanged."""
    for metric in metrics:
        yield MetricComparison(metric, "INCOMPARABLE", None, None, "no longer measured")


def _peaks(now: Sequence[int], then: Sequence[int], regress: float) -> Iterable[MetricComparison]:
    if now and then:
        yield compare_peaks(now, then, regress)
    elif then:
        yield from _lost(["peak_rss_bytes"])


def _perplexity(new: CellResult, old: CellResult, regress: float) -> Iterable[MetricComparison]:
    """Perplexity of the device: the same text through a deterministic program has no scatter."""
    now, then = _device_perplexity(new), _device_perplexity(old)
    if now is None or then is None:
        yield from _lost(["perplexity"] if then is not None else ())
        return
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
        yield MetricComparison("perplexity", "INCOMPARABLE", None, None, reason)
        return
    ratio = value / old_value
    verdict: BaselineVerdict = "IMPROVED" if ratio < 1 / (1 + regress) else "PASS"
    reason = ""
    if ratio > 1 + regress:
        verdict, reason = "REGRESSED", f"perplexity {value:.4g}, was {old_value:.4g}"
    yield MetricComparison("perplexity", verdict, ratio, None, reason, 1 + regress)


def _device_perplexity(result: CellResult) -> tuple[int, float | None, float] | None:
    """Rows, perplexity of eager_fp32 where known, and perplexity of the device."""
    stages = result.correctness.stages if result.correctness else ()
    decode = [s for s in stages if s.path == "decode"]
    device = next((s for s in decode if s.to == "device_pte" and s.perplexity_to), None)
    if device is None or device.perplexity_to is None:
        return None
    reference = next((s.perplexity_from for s in decode if s.from_ == "eager_fp32"), None)
    return device.tokens, reference, device.perplexity_to
