"""One finished device run to its judgement: correct, how fast, to be trusted, passed or not.

Pure: logits come as matrices and the generated text as text. Outcome: any gate failed ->
failed; else any gate undecidable, nothing to judge by, or not one speed to be trusted ->
inconclusive; else passed. On an emulated device correctness counts and speed is recorded with
trust `invalid`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from farm.core.artifact import LogitsRef, SourceCheck
from farm.core.hostrun import HostRunResult
from farm.core.result import (
    CorrectnessReport,
    GateResult,
    Judgement,
    MemoryReport,
    PerformanceReport,
)
from farm.core.rules.classes import device_class
from farm.core.rules.launches import logits_passes, measures, too_long
from farm.core.runtime import LaunchResult
from farm.core.tasks import CompareTask
from farm.judge.answers import Answer, judge_answer
from farm.judge.canary import canary_gates
from farm.judge.conditions import conditions
from farm.judge.correctness import (
    EVERY_PATH,
    PATHS,
    ChainResult,
    StageLogits,
    compare_chain,
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
    no_language_perplexity,
)
from farm.judge.logits import Logits, Matrix, every_position
from farm.judge.performance import energy_report, peak_rss_by_launch, performance_reports
from farm.judge.replay import LayerCosine, canary_report, replay_gates
from farm.judge.rules import RuleContext, judge_pair, judge_source
from farm.judge.sides import Sides, untrusted
from farm.judge.text import garbage_reason


@dataclass(frozen=True, slots=True)
class _Correctness:
    """The correctness report and what the guards take from it."""

    report: CorrectnessReport
    #: None where the text says nothing: not asked for, or a model that knows no language.
    text_guard: Guard | None


def stage_logits(task: CompareTask, open_ref: Callable[[LogitsRef], Matrix]) -> StageLogits:
    """Open every logits matrix of a cell.

    Args:
        task: The finished run and what it is compared with.
        open_ref: Maps an object of the content store; see farm.judge.logits.open_logits.

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
    extra = unmatched(spec.gates, [report.metric for report in performance])
    right = (*canary_gates(canary), *replay_gates(layer), *correctness.report.gates)
    report = replace(
        correctness.report,
        gates=(*right, *extra),
        canary=canary_report(task, canary, layer),
    )
    facts = task.device.facts
    emulated = facts is not None and bool(facts.emulated)
    sides = Sides(
        correctness=right,
        speed=[*extra, *(gate for p in performance for gate in p.gates)],
        memory=memory.gates,
        untrusted=(no_speed := untrusted(performance, emulated=emulated)),
        # Canary and source can fail a cell; alone they say nothing of the model on the device.
        model_judged=len(correctness.report.gates) > len(judge_source(task.reference.source)),
    )
    outcome, reason = sides.outcome()
    flags = _flags(task, performance, guards)
    return Judgement(
        outcome=outcome,
        reason=reason,
        flags=(
            *_unread(task.reference.source, correctness, generated_text),
            *(("speed_untrusted",) if no_speed else ()),
            *flags,
        ),
        correctness=report,
        performance=tuple(performance),
        memory=memory,
        energy=energy_report(task.run),
        conditions=conditions(task.run, task.device, guards)
        | _source(task.reference.source)
        | ({"speed": no_speed} if no_speed else {}),
        backend_effective=effective,
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


def same_code(host: HostRunResult | None, launches: Sequence[LaunchResult], sha256: str) -> bool:
    """True when host and device ran one binary with one instruction set: bits must agree.

    Backends choose their code by more of the CPU than the set that the runner itself uses.
    """
    if host is None or not launches or host.runner.sha256 != sha256:
        return False
    ours, theirs = host.hello, launches[0].hello
    return (ours.isa, ours.features) == (theirs.isa, theirs.features)


def _judge_correctness(
    task: CompareTask, logits: StageLogits, generated_text: str | None, answer: Answer | None
) -> _Correctness:
    spec = task.spec
    chain = compare_chain(logits, task.reference.tokens, wanted_pairs(spec.gates))
    floor = task.host.noise_floor if task.host is not None else None
    context = RuleContext(
        linear=task.recipe.linear,
        noise_floor=dict(floor.kl_mean) if floor is not None else {},
        same_code=same_code(task.host, task.run.launches, task.run.runner.sha256),
    )
    gates = [*chain.malformed, *_repeatable(task.run.launches)]
    stages = []
    source = task.reference.source
    if source.max_abs_error is not None:
        stages.append(source_report(source.max_abs_error, source.tokens))
    gates += judge_source(source)
    for path in PATHS:
        for pair in (p for p in chain.pairs if p.path == path):
            gates += judge_pair(pair, context)
            to_device = (pair.from_, pair.to) == ("host_pte", "device_pte")
            stages.append(
                stage_report(pair, path, context.noise_floor.get(path) if to_device else None)
            )
    if answer is not None:
        stage, gate = judge_answer(answer)
        stages.append(stage)
        gates.append(gate)
    guard = _text_guard(generated_text, chain, task.export.bundle.metadata.vocab_size)
    if guard is not None:
        gates.append(_text_gate(guard))
    gates += correctness_gates(spec.gates, chain.pairs)
    report = CorrectnessReport(
        stages=tuple(stages),
        canary=None,
        generated_text=generated_text,
        gates=tuple(_once(gates)),
        prompt=spec.correctness.prompt,
    )
    return _Correctness(report, guard)


def _text_guard(text: str | None, chain: ChainResult, vocabulary: int) -> Guard | None:
    """Look at the generated text, unless the model is known to know no language.

    Without an eager reference a huge perplexity may be a random model or a broken artifact, and
    its text can't tell which: the guard is unavailable, and the cell can't pass by it.
    """
    if text is None:
        return None
    reference = _perplexity_of("eager_fp32", chain)
    limit = no_language_perplexity(vocabulary)
    if reference is not None and reference > limit:
        return None
    host = _perplexity_of("host_pte", chain)
    if reference is None and host is not None and host > limit:
        return Guard(
            "garbage_text",
            "unavailable",
            f"perplexity {host:.0f} and no reference: a random model, or a broken artifact",
        )
    reason = garbage_reason(text)
    return Guard("garbage_text", "ok" if reason is None else "flagged", reason or "")


def _perplexity_of(stage: str, chain: ChainResult) -> float | None:
    return next(
        (
            pair.comparison.perplexity_from
            for pair in chain.pairs
            if pair.from_ == stage and pair.comparison.perplexity_from is not None
        ),
        None,
    )


def _text_gate(guard: Guard) -> GateResult:
    return GateResult(
        metric="text",
        op="==",
        threshold=None,
        value=None,
        passed=None if guard.state == "unavailable" else guard.state == "ok",
        text="generated text is language",
        reason=guard.detail,
    )


def _repeatable(launches: Sequence[LaunchResult]) -> list[GateResult]:
    """Two launches that gave logits for one pass must have given the same bytes."""
    seen: dict[str, set[str]] = {}
    repeats: dict[str, int] = {}
    for launch in launches:
        for name, ref in launch.logits:
            seen.setdefault(name, set()).add(ref.object.sha256)
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
    """The first launch's logits of each pass."""
    found: dict[str, LogitsRef] = {}
    for launch in task.run.launches:
        for name, ref in launch.logits:
            found.setdefault(name, ref)
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
    if task.spec.correctness.canary and task.run.canary is None:
        flags.append("no_canary")
    if not task.runner.gives_logits:
        flags.append("text_only")
    if task.run.launches and all(x.peak_rss_bytes is None for x in task.run.launches):
        flags.append("no_peak_rss")
    return tuple(dict.fromkeys(flags))


def _unread(
    source: SourceCheck, correctness: _Correctness, generated_text: str | None
) -> tuple[str, ...]:
    """What of the model nobody could judge: its reading by farm, its text."""
    found = []
    if not source.by or source.ids_equal is None:
        found.append("unanchored")
    if generated_text is not None and correctness.text_guard is None:
        found.append("text_not_judged")
    return tuple(found)


def _source(source: SourceCheck) -> dict[str, str]:
    """The independent source as a condition of the result."""
    if not source.by:
        return {"source": f"none: {source.reason}"}
    return {"source": f"{source.by}, {source.tokens} tokens"}


def _once(gates: Iterable[GateResult]) -> list[GateResult]:
    """Drop repeats: a stage full of NaN is told once, not once a pair."""
    return list(dict.fromkeys(gates))
