"""The gates of a run config, decided on the figures of one cell.

An invalid or missing number passes no gate and fails no gate: `passed` is None, with a reason. A
noisy one fails none, and passes one only where its whole interval does.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

from farm.core.result import GateResult, PerformanceReport, Trust
from farm.core.rules.gates import CORRECTNESS_METRICS, MEMORY_METRICS, applies
from farm.core.spec import Gate
from farm.judge.metrics import Comparison, PerplexityChange
from farm.judge.rules import Pair

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}

_STAGE = {"host": "host_pte", "eager_fp32": "eager_fp32", "eager_quantised": "eager_quantised"}
_PATH = "decode"


def wanted_pairs(gates: Iterable[Gate]) -> set[tuple[str, str]]:
    """Stage pairs beyond the chain that these gates need compared on the decode path."""
    wanted: set[tuple[str, str]] = set()
    for gate in gates:
        if gate.metric not in CORRECTNESS_METRICS or gate.relative_to is None:
            continue
        stage = _STAGE[gate.relative_to]
        wanted.add((stage, "device_pte") if gate.metric == "perplexity" else ("eager_fp32", stage))
    return wanted


def correctness_gates(gates: Iterable[Gate], pairs: Sequence[Pair]) -> list[GateResult]:
    """Decide the gates on logits."""
    index = {(p.from_, p.to): p.comparison for p in pairs if p.path == _PATH}
    return [
        _perplexity_gate(gate, index) if gate.metric == "perplexity" else _logits_gate(gate, index)
        for gate in gates
        if gate.metric in CORRECTNESS_METRICS
    ]


def performance_gates(gates: Iterable[Gate], report: PerformanceReport) -> list[GateResult]:
    """Decide the gates that apply to one metric."""
    return [
        _speed_gate(
            gate,
            report.median,
            report.ci95,
            report.trust,
            loaded=report.guards.get("load") == "flagged",
        )
        for gate in gates
        if applies(gate.metric, report.metric)
    ]


def memory_gates(gates: Iterable[Gate], peak_rss_bytes: int | None) -> list[GateResult]:
    """Decide the gates on memory."""
    return [
        _speed_gate(gate, peak_rss_bytes, None, "ok")
        for gate in gates
        if gate.metric in MEMORY_METRICS
    ]


def unmatched(gates: Iterable[Gate], metrics: Iterable[str]) -> list[GateResult]:
    """Gates on metrics that this cell doesn't measure: undecidable, never silently dropped."""
    present = list(metrics)
    return [
        _undecided(gate, None, f"this cell measures no {gate.metric}")
        for gate in gates
        if gate.metric not in (*CORRECTNESS_METRICS, *MEMORY_METRICS)
        and not any(applies(gate.metric, name) for name in present)
    ]


def decide(gate: Gate, value: float | None, threshold: float | None, *, why: str) -> GateResult:
    """Compare a figure with its bound; `why` is the reason given when one of them is missing."""
    if value is None or threshold is None or not math.isfinite(value):
        return _undecided(gate, threshold, why)
    passed = _OPERATORS[gate.op](value, threshold)
    return GateResult(gate.metric, gate.op, threshold, value, passed, gate.text)


def describe(gate: GateResult) -> str:
    """One clause for people, for example `decode_tok_s 4.2, wanted >= 5`."""
    if gate.reason:
        # The user's own text is a bound (`>= 5`); that of a built-in rule names its subject.
        is_bound = not gate.text or gate.text[0] in "<>="
        subject = f"{gate.metric} {gate.text}".rstrip() if is_bound else gate.text
        return f"{subject}: {gate.reason}"
    value = "unknown" if gate.value is None else f"{gate.value:.6g}"
    bound = "" if gate.threshold is None else f", wanted {gate.op} {gate.threshold:.6g}"
    text = f" ({gate.text})" if gate.text else ""
    return f"{gate.metric} {value}{bound}{text}"


def _undecided(gate: Gate, threshold: float | None, reason: str) -> GateResult:
    return GateResult(gate.metric, gate.op, threshold, None, None, gate.text, reason)


def _perplexity_gate(gate: Gate, index: Mapping[tuple[str, str], Comparison]) -> GateResult:
    value = next(
        (c.perplexity_to for (_, to), c in index.items() if to == "device_pte"),
        None,
    )
    if gate.relative_to is None:
        return decide(gate, value, gate.value, why="the device has no perplexity")
    stage = _STAGE[gate.relative_to]
    pair = index.get((stage, "device_pte"))
    if pair is None or pair.perplexity_from is None:
        return _undecided(gate, None, f"no perplexity of {stage} to compare with")
    threshold = gate.value * pair.perplexity_from
    result = decide(gate, value, threshold, why="the device has no perplexity")
    if result.passed is False and _could_be_noise(gate, pair.perplexity_change):
        change = pair.perplexity_change
        tokens = 0 if change is None else change.positions
        reason = f"outside the bound, but not by more than {tokens} tokens can tell: use more"
        return GateResult(gate.metric, gate.op, threshold, value, None, gate.text, reason)
    return result


def _could_be_noise(gate: Gate, change: PerplexityChange | None) -> bool:
    """True when the paired 95 % interval of the change reaches back to the gate's factor."""
    if change is None or change.standard_error is None or gate.value <= 0:
        return False
    return abs(change.log_ratio - math.log(gate.value)) <= 1.96 * change.standard_error


def _logits_gate(gate: Gate, index: Mapping[tuple[str, str], Comparison]) -> GateResult:
    value = _figure(index.get(("eager_fp32", "device_pte")), gate.metric)
    why = f"no eager reference to take {gate.metric} from"
    if gate.relative_to is None:
        return decide(gate, value, gate.value, why=why)
    stage = _STAGE[gate.relative_to]
    other = _figure(index.get(("eager_fp32", stage)), gate.metric)
    threshold = None if other is None else gate.value * other
    return decide(gate, value, threshold, why=why)


def _figure(comparison: Comparison | None, metric: str) -> float | None:
    if comparison is None:
        return None
    value: float | None = getattr(comparison, metric)
    return value


def _speed_gate(
    gate: Gate,
    value: float | None,
    ci95: tuple[float, float] | None,
    trust: Trust,
    *,
    loaded: bool = False,
) -> GateResult:
    if gate.relative_to is not None:
        return _undecided(gate, None, f"{gate.metric} has no figure of {gate.relative_to}")
    if trust == "invalid":
        return _undecided(gate, gate.value, "the number is invalid")
    result = decide(gate, value, gate.value, why="not measured")
    if loaded and result.passed is False:
        # What is good enough beside other programs is good enough; the reverse says nothing.
        return _undecided(gate, gate.value, "other programs used the device meanwhile")
    if trust == "noisy" and (result.passed is False or not _holds(gate, ci95)):
        return _undecided(gate, gate.value, "too noisy to tell")
    return result


def _holds(gate: Gate, ci95: tuple[float, float] | None) -> bool:
    """Whether the gate passes at both ends of an interval."""
    return ci95 is not None and all(_OPERATORS[gate.op](end, gate.value) for end in ci95)
