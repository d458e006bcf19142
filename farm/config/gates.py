"""Gates and waivers of a run config: a name that nobody knows, a bound that nothing can decide.

Works on the finished spec, whose workload says what will be measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from farm.core.errors import ConfigError
from farm.core.names import nearest
from farm.core.rules.family import SECOND_BUDGET
from farm.core.rules.gates import (
    BUILT_IN,
    CORRECTNESS_METRICS,
    MEMORY_METRICS,
    PERFORMANCE_METRICS,
    REGRESS,
    applies,
    kind_of,
)
from farm.core.rules.launches import measures
from farm.core.spec import Gate, RunSpec, Waiver, Workload

#: Rates of decoding without a pause.
SUSTAINED = ("first_minute", "steady")
#: Gates of the config whose names built-in rules have too.
_ALSO_BUILT_IN = ("kl_mean", "max_abs_error")
#: Values that a metric can have at all, where that is less than every positive number. A bound
#: beyond these is most likely in another unit.
_RANGES: Mapping[str, tuple[float, float]] = {
    "perplexity": (1.0, math.inf),
    "top1_agreement": (0.0, 1.0),
    "cosine_min": (-1.0, 1.0),
    "peak_rss_bytes": (2.0**20, 2.0**50),
}
_RATES, _TIMES = (0.0, 1e7), (0.0, 1e6)
#: Begins of the metrics of which more is better.
_MORE_IS_BETTER = ("pp", "tg", *SUSTAINED, "top1_agreement", "cosine_min")
Problem = tuple[str, str]


def check_gates(spec: RunSpec) -> None:
    """Refuse gates that can never decide, and waivers of gates that there aren't.

    Raises:
        ConfigError: Names the file and, for each problem, its key and what is right.
    """
    problems = [*_gates(spec), *_waivers(spec), *_excluded(spec), *_budget(spec), *_planted(spec)]
    if problems:
        text = "\n".join(f"{spec.source}: {key}: {message}" for key, message in problems)
        raise ConfigError(text, file=spec.source, key=problems[0][0])


def measured(workload: Workload) -> list[str]:
    """Names of the metrics of speed that a workload gives, as the report has them."""
    found = measures(workload)
    prefills = [m.name for m in found if m.prefill and not m.decode]
    decodes = [m.name for m in found if m.decode]
    names = [*prefills, *decodes, "load"]
    names += ["ttft"] if len(prefills) == 1 else [f"ttft@{name}" for name in prefills]
    names += ["inter_token"] if len(decodes) == 1 else [f"inter_token@{name}" for name in decodes]
    return [*names, *(SUSTAINED if workload.sustained_s else ())]


def _gates(spec: RunSpec) -> Iterator[Problem]:
    metrics = measured(spec.workload)
    if not 0 < spec.regress < 1:
        yield "gates.regress", f"{spec.regress:.0%} can't be decided; write for example `2%`"
    for gate in spec.gates:
        message = (
            _unknown(gate.metric, metrics)
            or _undecidable(gate, spec)
            or _empty(gate)
            or _backwards(gate)
        )
        if message:
            yield f"gates.{gate.metric}", message


def _unknown(name: str, metrics: Sequence[str]) -> str:
    """Say that a gate has no such name, or that the workload measures nothing of the kind."""
    fixed = (*CORRECTNESS_METRICS, *MEMORY_METRICS)
    if name in fixed or any(applies(name, metric) for metric in metrics):
        return ""
    if name in BUILT_IN:
        return "a built-in rule judges it in every run: leave it out"
    listed = ", ".join(metrics)
    if name in PERFORMANCE_METRICS:
        return f"nothing of the workload gives it; it measures {listed}"
    known = [*PERFORMANCE_METRICS, *fixed, REGRESS]
    return f"unknown gate{_hint(name, [*known, *metrics])}; known: {', '.join(known)}, or {listed}"


def _hint(name: str, known: Sequence[str]) -> str:
    meant = nearest(name, known)
    return "" if meant is None else f", did you mean {meant}?"


def _undecidable(gate: Gate, spec: RunSpec) -> str:
    """Say why no figure of a run can decide the gate."""
    kind, base = kind_of(gate.metric), gate.relative_to
    if base is not None and kind != "correctness":
        return (
            f"{gate.text!r} can never be decided: {base} has no {gate.metric} to compare with;"
            f" write a bound of its own, such as `{gate.op} {gate.value:g}`"
        )
    if base == "eager_fp32" and gate.metric != "perplexity":
        return (
            f"{gate.text!r} can never be decided: {gate.metric} is taken against eager_fp32"
            " already; allowed: a plain bound, `x host` or `x eager_quantised`"
        )
    needs_eager = gate.metric != "perplexity" or base in ("eager_fp32", "eager_quantised")
    if kind == "correctness" and needs_eager and all(m.kind == "pte" for m in spec.models):
        return (
            f"{gate.text!r} can never be decided: a prebuilt .pte has no eager model to compare"
            " with; allowed: perplexity with a plain bound or `x host`"
        )
    if gate.op == "==" and kind != "correctness":
        return f"{gate.text!r} can never be met: measured values vary; write `<=` or `>=`"
    return ""


def _empty(gate: Gate) -> str:
    """Say that a bound passes everything or nothing."""
    if not math.isfinite(gate.value):
        return f"{gate.text!r} is no finite number"
    if gate.relative_to is not None:
        return _better_than_base(gate)
    low, high = _range(gate.metric)
    compare: dict[str, Callable[[float], bool]] = {
        "<=": lambda value: value <= gate.value,
        "<": lambda value: value < gate.value,
        ">=": lambda value: value >= gate.value,
        ">": lambda value: value > gate.value,
        "==": lambda value: value == gate.value,
    }
    ends = [compare[gate.op](low), compare[gate.op](high)]
    inside = gate.op == "==" and low < gate.value < high
    positive = kind_of(gate.metric) != "correctness"
    if inside:
        return f"{gate.text!r} can never be met: measured values vary; write `<=` or `>=`"
    if not any(ends) or (positive and gate.op in ("<=", "<") and gate.value <= 0):
        return f"{gate.text!r} can never be met: {gate.metric} lies between {low:g} and {high:g}"
    if all(ends):
        return f"{gate.text!r} can never fail: {gate.metric} lies between {low:g} and {high:g}"
    return ""


def _range(metric: str) -> tuple[float, float]:
    """The least and the most that a metric can be."""
    if kind_of(metric) != "speed":
        return _RANGES.get(metric, (0.0, math.inf))
    return _RATES if _more_is_better(metric) else _TIMES


def _more_is_better(metric: str) -> bool:
    return metric.startswith(_MORE_IS_BETTER) or metric.endswith("tok_s")


def _better_than_base(gate: Gate) -> str:
    """Say that a factor asks for more than what the artifact is held against gives itself."""
    if gate.value <= 0:
        return f"{gate.text!r}: write a factor above 0"
    more = _more_is_better(gate.metric)
    if gate.op[0] != (">" if more else "<") or (gate.value <= 1 if more else gate.value >= 1):
        return ""
    side = "below" if more else "above"
    return f"{gate.text!r} asks for better than {gate.relative_to}; write a factor of 1 or {side}"


def _budget(spec: RunSpec) -> Iterator[Problem]:
    """A second sitting that its limit ends confirms nothing, and so no loss is ever proven."""
    longest = SECOND_BUDGET * spec.workload.budget_s
    if longest >= spec.limits.job_s:
        yield (
            "workload.budget_s",
            f"a second sitting may take {SECOND_BUDGET} times as long, {longest:g} s, and"
            f" limits.job_s ends it after {spec.limits.job_s:g} s",
        )


def _planted(spec: RunSpec) -> Iterator[Problem]:
    if spec.self_check is not None and spec.self_check.slower in spec.matrix.recipe:
        name = spec.self_check.slower
        yield "self_check.slower", f"{name} is what the matrix runs: beside itself it is not slower"


def _backwards(gate: Gate) -> str:
    """Say that a gate passes what is wrong or slow, and fails what is right and quick."""
    more = _more_is_better(gate.metric)
    wanted = ">=" if more else "<="
    if gate.op == "==" or gate.op[0] == wanted[0]:
        return ""
    word = "more" if more else "less"
    return f"{gate.text!r} is the wrong way round: {word} is better; write `{wanted}`"


def _waivers(spec: RunSpec) -> Iterator[Problem]:
    metrics = measured(spec.workload)
    ours = [gate.metric for gate in spec.gates]
    known = [*ours, REGRESS, *BUILT_IN, *_ALSO_BUILT_IN]
    for index, waiver in enumerate(spec.waivers):
        where = f"waivers.{index}"
        if waiver.gate not in known:
            listed = ", ".join(dict.fromkeys(known))
            yield (
                f"{where}.gate",
                f"{waiver.gate!r} judges nothing here{_hint(waiver.gate, known)}; known: {listed}",
            )
            continue
        if waiver.max_loss is not None and waiver.gate != REGRESS:
            yield f"{where}.max_loss", "goes with `gate: regress` only"
        if waiver.stage and waiver.gate not in (*BUILT_IN, *_ALSO_BUILT_IN):
            yield f"{where}.stage", "goes with the built-in rules of correctness only"
        yield from _waived_metric(waiver, metrics, f"{where}.metric")


def _waived_metric(waiver: Waiver, metrics: Sequence[str], key: str) -> Iterator[Problem]:
    if not waiver.metric:
        return
    known = [*metrics, *MEMORY_METRICS, "perplexity"]
    if waiver.gate != REGRESS:  # such a gate fails its own metrics only
        known = [metric for metric in known if applies(waiver.gate, metric)] or [waiver.gate]
    if any(applies(waiver.metric, metric) for metric in known):
        return
    hint = _hint(waiver.metric, [*known, *PERFORMANCE_METRICS])
    yield key, f"{waiver.gate} judges no {waiver.metric!r} here{hint}; it judges {', '.join(known)}"


def _excluded(spec: RunSpec) -> Iterator[Problem]:
    """Rules that leave nothing out: a name that the matrix doesn't have."""
    values = {
        "model": [model.name for model in spec.models],
        "recipe": list(spec.matrix.recipe),
        "toolchain": list(spec.matrix.toolchain),
        "runner": list(spec.matrix.runner),
        "threads": [str(count) if count else "auto" for count in spec.matrix.threads],
    }
    for index, rule in enumerate(spec.exclude):
        for field, value in rule:
            if field in values and value not in values[field]:
                hint = _hint(value, values[field])
                has = ", ".join(values[field])
                yield f"exclude.{index}.{field}", f"{value!r} leaves nothing out{hint}; has: {has}"
