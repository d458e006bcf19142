"""One finished device run to its judgement: correct, how fast, to be trusted, passed or not.

Pure: logits come as matrices and the generated text as text. Outcome: any gate failed ->
failed; else any gate undecidable, nothing to judge by, or not one speed to be trusted ->
inconclusive; else passed. On an emulated device correctness counts and speed is recorded with
trust `invalid`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from farm.core.artifact import LogitsRef
from farm.core.judgement import Judgement
from farm.core.reference import SourceCheck
from farm.core.result import CorrectnessReport, GateResult, MemoryReport, PerformanceReport
from farm.core.rules.classes import device_class
from farm.core.rules.launches import logits_passes, measures, too_long
from farm.core.runtime import LaunchResult
from farm.core.tasks import CompareTask
from farm.judge.answers import Answer, judge_answer
from farm.judge.canary import canary_gates
from farm.judge.compact import CompactLogits
from farm.judge.conditions import conditions, launch_states
from farm.judge.correctness import (
    EVERY_PATH,
    PATHS,
    StageLogits,
    compare_chain,
    form_condition,
    source_report,
    stage_report,
)
from farm.judge.environment import environment_guards
from farm.judge.gates import (
    correctness_gates,
    memory_gates,
    unmatched,
    wanted_pairs,
)
from farm.judge.guards import (
    Guard,
    backend_guard,
)
from farm.judge.hosted import (
    absent,
    control_condition,
    host_gates,
    passes_not_judged,
    same_code,
)
from farm.judge.language import text_gate, text_guard
from farm.judge.logits import Logits, Matrix, every_position
from farm.judge.performance import energy_report, peak_rss_by_launch, performance_reports
from farm.judge.replay import LayerCosine, canary_report, replay_gates
from farm.judge.rules import MIN_ROWS, Pair, RuleContext, judge_pair, judge_source
from farm.judge.sides import Sides, untrusted
from farm.judge.sustained import CAPS, judge_sustained
from farm.judge.timed_tokens import timed_token_gates, timed_tokens_condition
from farm.judge.weights import weight_gates, weights_condition
from farm.judge.work import told, work_report


@dataclass(frozen=True, slots=True)
class _Correctness:
    """The correctness report and what the guards take from it."""

    report: CorrectnessReport
    #: None where the text says nothing: not asked for, or a model that knows no language.
    text_guard: Guard | None
    #: In which form the device's logits came, as a condition; empty where all rows were whole.
    form: dict[str, str]


def stage_logits(
    task: CompareTask, open_ref: Callable[[LogitsRef], Matrix | CompactLogits]
) -> StageLogits:
    """Open every logits matrix of a cell.

    Args:
        task: The finished run and what it is compared with.
        open_ref: Maps an object of the content store; see farm.judge.logits.open_some.

    Raises:
        StoreError, BadOutput: As `open_ref`.
    """
    passes = {p.name: p.positions for p in logits_passes(task.spec.correctness, task.spec.workload)}
    stages: dict[str, dict[str, Logits]] = {}
    eager = {
        "eager_fp32": task.reference.eager_fp32,
        "eager_quantised": task.reference.eager_quantised,
    }
    for stage, ref in eager.items():
        if ref is not None:
            stages[stage] = {EVERY_PATH: every_position(open_ref(ref))}
    runs = {"device_pte": _device_logits(task)}
    if task.host is not None:
        runs["host_pte"] = task.host.logits
    for stage, refs in runs.items():
        stages[stage] = {
            name: Logits(open_ref(ref), passes[name]) for name, ref in refs if name in passes
        }
    return stages


def judge_cell(
    task: CompareTask,
    logits: StageLogits,
    *,
    generated_text: str | None,
    answer: Answer | None = None,
    canary: float | None = None,
    layer: LayerCosine | None = None,
) -> Judgement:
    """Judge a finished device run.

    Args:
        task: The run, and the results it is judged by.
        logits: Opened matrices by stage and path, as stage_logits gives them.
        generated_text: The device's answer to the prompt, decoded; None when it gave none.
        answer: Its tokens with eager logits, where the runner gives no logits of its own.
        canary: Largest difference of the device's canary to PyTorch, as canary_error gives it.
        layer: How well the layer that it replayed agrees, as layer_cosine gives it.
    """
    spec, entry = task.spec, task.device.entry
    correctness = _judge_correctness(task, logits, generated_text, answer)
    guards: list[Guard] = []
    if task.device.facts is not None:
        kind = device_class(task.device.facts, entry.labels)
        guards += environment_guards(task.device.facts, entry, kind, task.run)
    effective = effective_backend(task)
    guards.append(backend_guard(task.export.bundle.backend, effective))
    if correctness.text_guard is not None:
        guards.append(correctness.text_guard)
    performance = performance_reports(
        task.run,
        measures(spec.workload),
        spec.gates,
        guards,
        too_long(spec.workload, task.export.bundle.metadata.max_context),
    )
    memory = _memory(task)
    long, rates = judge_sustained(task, [guard for guard in guards if guard.name not in CAPS])
    # Gates stand on warm numbers: a row of another regime, or of what didn't fit, decides none.
    judged = [p.metric for p in (*performance, *rates) if p.regime == "warm" and not p.reason]
    extra = unmatched(spec.gates, judged)
    # In the order in which a cell comes about: the first that fails is what it is blamed on.
    kernels = (*canary_gates(canary), *replay_gates(layer))
    right = (*weight_gates(task.export), *kernels, *host_gates(task), *correctness.report.gates)
    report = replace(
        correctness.report,
        gates=(*right, *extra),
        canary=canary_report(task, canary, layer),
    )
    facts = task.device.facts
    emulated = facts is not None and bool(facts.emulated)
    sides = Sides(
        correctness=right,
        speed=[*extra, *(gate for p in (*performance, *rates) for gate in p.gates)],
        memory=memory.gates,
        untrusted=(no_speed := untrusted(performance, emulated=emulated)),
    )
    outcome, reason = sides.outcome()
    work = work_report(task.run)
    flags = _flags(task, performance, guards)
    return Judgement(
        outcome=outcome,
        reason=reason,
        flags=(
            *_unread(task, correctness),
            *(("speed_untrusted",) if no_speed else ()),
            *flags,
        ),
        correctness=report,
        performance=(*performance, *rates),
        memory=memory,
        energy=energy_report(task.run),
        sustained=long,
        launches=launch_states(task.run),
        conditions=conditions(task.run, task.device, guards)
        | _source(task.reference.source)
        | weights_condition(task.export)
        | control_condition(task)
        | timed_tokens_condition(task.run.launches)
        | correctness.form
        | {"instructions": told(work)}
        | ({"speed": no_speed} if no_speed else {}),
        backend_effective=effective,
        work=work,
        correctness_decision=sides.correctness_decision,
        speed_decision=sides.speed_decision,
    )


def effective_backend(task: CompareTask) -> str | None:
    """Name the backend that ran; None where neither export nor runner can tell."""
    requested = task.export.bundle.backend
    if requested in ("portable", "ggml"):
        return requested
    delegation = task.export.delegation
    if delegation is not None and delegation.delegated == 0:
        return "portable"
    launch = task.run.launches[0] if task.run.launches else None
    if launch is not None and launch.hello.backends:
        # A runner that tells which backends it has also tells which ones the program uses.
        used = any(name.lower().startswith(requested) for name in launch.backends)
        return requested if used else "portable"
    return None if delegation is None else requested


def _judge_correctness(
    task: CompareTask, logits: StageLogits, generated_text: str | None, answer: Answer | None
) -> _Correctness:
    spec = task.spec
    chain = compare_chain(logits, task.reference.tokens, wanted_pairs(spec.gates))
    floor = task.host.noise_floor if task.host is not None else None
    context = RuleContext(
        linear=task.recipe.linear,
        noise_floor=dict(floor.kl_mean) if floor is not None else {},
        floors={one.path: one for one in floor.paths} if floor is not None else {},
        bound=task.reference.bound,
        same_code=same_code(task.host, task.run.launches, task.run.runner.sha256),
        controls=() if task.host is None else task.host.controls,
        other_abi=task.host is not None and task.host.runner.abi != task.run.runner.abi,
    )
    # A pass of few rows may come out in the same bits: another one tells that the device computes.
    computes = any(_to_device(p) and not p.comparison.bit_equal for p in chain.pairs)
    of_few = replace(context, other_abi=context.other_abi and not computes)
    timed = timed_token_gates(spec.workload, task.run.launches, dict(logits.get("device_pte", {})))
    gates = [*chain.malformed, *absent(task, logits), *_repeatable(task.run.launches), *timed]
    stages, of_device = [], 0
    source = task.reference.source
    if source.max_abs_error is not None:
        stages.append(source_report(source.max_abs_error, source.tokens))
    gates += judge_source(source)
    for path in PATHS:
        for pair in (p for p in chain.pairs if p.path == path):
            few = pair.comparison.rows < MIN_ROWS
            gates += (found := judge_pair(pair, of_few if few else context))
            of_device += len(found) if pair.to == "device_pte" else 0
            floor_kl = context.noise_floor.get(path) if _to_device(pair) else None
            stages.append(stage_report(pair, path, floor_kl))
    if answer is not None:
        stage, gate = judge_answer(answer)
        stages.append(stage)
        gates.append(gate)
    vocabulary = task.export.bundle.metadata.vocab_size
    guard = text_guard(generated_text, chain, vocabulary, source)
    if guard is not None:
        gates.append(text_gate(guard))
    gates += [] if of_device or answer is not None or guard is not None else [_nothing()]
    gates += correctness_gates(spec.gates, chain.pairs)
    report = CorrectnessReport(
        stages=tuple(stages),
        canary=None,
        generated_text=generated_text,
        gates=tuple(_once(gates)),
        prompt=spec.correctness.prompt,
    )
    return _Correctness(report, guard, form_condition(chain.pairs))


def _to_device(pair: Pair) -> bool:
    return (pair.from_, pair.to) == ("host_pte", "device_pte")


def _nothing() -> GateResult:
    """Canary, source and the host say nothing of the model on the device."""
    reason = "nothing to judge the model by: no logits, no text"
    return GateResult("model", "==", None, None, None, "device_pte", reason)


def _repeatable(launches: Sequence[LaunchResult]) -> list[GateResult]:
    """Two launches that gave logits for one pass must have given the same bytes."""
    seen: dict[str, set[str]] = {}
    repeats: dict[str, int] = {}
    for launch in launches:
        for name, ref in launch.logits:
            seen.setdefault(name, set()).add(ref.identity)
            repeats[name] = repeats.get(name, 0) + 1
    return [
        GateResult(
            metric="repeatable",
            op="==",
            threshold=1.0,
            value=float(len(shas) == 1),
            passed=len(shas) == 1,
            text=f"device_pte ({name}): equal logits in {repeats[name]} launches",
            reason="" if len(shas) == 1 else f"{len(shas)} different results",
        )
        for name, shas in seen.items()
        if repeats[name] > 1
    ]


def _device_logits(task: CompareTask) -> tuple[tuple[str, LogitsRef], ...]:
    """The first launch's logits of each pass; the host's where they are the same bytes."""
    hosted = () if task.host is None else task.host.logits
    whole = {ref.object.sha256: ref for _, ref in hosted}
    found: dict[str, LogitsRef] = {}
    for launch in task.run.launches:
        for name, ref in launch.logits:
            found.setdefault(name, whole.get(ref.identity, ref) if ref.compact else ref)
    return tuple(found.items())


def _memory(task: CompareTask) -> MemoryReport:
    own = [launch for launch in task.run.launches if launch.arm == "candidate"]
    peaks = [x.peak_rss_bytes for x in own if x.peak_rss_bytes is not None]
    peak = max(peaks, default=None)
    return MemoryReport(
        peak_rss_bytes=peak,
        launches_bytes=peak_rss_by_launch(task.run),
        baseline_launches_bytes=peak_rss_by_launch(task.run, "baseline"),
        gates=tuple(memory_gates(task.spec.gates, peak)),
    )


def _flags(
    task: CompareTask, performance: Sequence[PerformanceReport], guards: Sequence[Guard]
) -> tuple[str, ...]:
    """What a reader of the table has to know, each once."""
    flags = [guard.name for guard in guards if guard.state == "flagged"]
    warm = [report for report in performance if report.regime == "warm"]
    states = {name for report in warm for name in report.guards.items()}
    if ("window", "flagged") in states:
        flags.append("short_window")
    if ("token_count", "flagged") in states:
        flags.append("token_count")
    flags += [
        trust
        for trust in ("invalid", "noisy", "unverified")
        if any(report.trust == trust and not report.reason for report in warm)
    ]
    if any(report.median is None and not report.reason for report in warm):
        flags.append("not_measured")
    elif any(report.ci95 is None and not report.reason for report in warm):
        flags.append("few_launches")
    if any(report.reason for report in warm):
        flags.append("too_long")
    if task.run.stop is not None and task.run.stop.reason == "budget":
        flags.append("budget_spent")
    if task.run.same_as_baseline:
        flags.append("same_as_baseline")
    if task.export.unquantised:
        flags.append("unquantised")
    if None in (task.run.canary, task.canary):
        flags.append("no_canary")
    if not task.runner.gives_logits:
        flags.append("text_only")
    if any(ref.compact for _, ref in _device_logits(task)):
        flags.append("compact_logits")
    flags += passes_not_judged(task)
    if task.run.launches and all(x.peak_rss_bytes is None for x in task.run.launches):
        flags.append("no_peak_rss")
    return tuple(dict.fromkeys(flags))


def _unread(task: CompareTask, correctness: _Correctness) -> tuple[str, ...]:
    """What of the model nobody could judge: its reading by farm, its text, its weights."""
    source, found = task.reference.source, []
    if not source.by or source.ids_equal is None:
        found.append("unanchored")
    if correctness.text_guard is None:
        found.append("text_not_judged")
    if task.reference.eager_quantised is None and task.reference.eager_fp32 is not None:
        found.append("quantisation_not_checked")
    elif task.recipe.linear != "none" and task.reference.eager_quantised is not None:
        found += [] if task.reference.bound is not None else ["bound_not_learned"]
    if task.runner.gives_logits and task.host is None:
        found.append("no_host_run")
    if not task.export.weights:
        found.append("weights_not_checked")
    return tuple(found)


def _source(source: SourceCheck) -> dict[str, str]:
    """The independent source as a condition of the result."""
    if not source.by:
        return {"source": f"none: {source.reason}"}
    return {"source": f"{source.by}, {source.tokens} tokens"}


def _once(gates: Iterable[GateResult]) -> list[GateResult]:
    """Drop repeats: a stage full of NaN is told once, not once a pair."""
    return list(dict.fromkeys(gates))
