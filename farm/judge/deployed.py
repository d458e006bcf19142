"""Whether a deployed version computes as the validated run did. Values in, gates out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from farm.core.deployment import Answer, Manifest, Rate
from farm.core.result import GateResult
from farm.core.runtime import LaunchResult
from farm.judge.answers import Answer as JudgedAnswer
from farm.judge.answers import judge_answer
from farm.judge.canary import canary_gates
from farm.judge.logits import Matrix

#: How far below the run's interval a rate may lie. Phones drift by 16-25 % between sittings
#: with nothing wrong; what a deployment breaks (another runner, one core) costs more.
RATE_TOLERANCE = 0.25


def answer_gate(answer: Answer, launch: LaunchResult, forced: Matrix | None) -> GateResult:
    """Compare a device's greedy answer with the validated run's.

    Args:
        answer: The run's.
        launch: What the device gave.
        forced: Where the run wasn't bit-equal to its host: the device's logits at each token of
            the run's answer, [tokens, vocabulary]. Tokens may differ where rounding decides; how
            much likelier the device's own choices were says whether rounding is all.
    """
    if launch.generated is None:
        return _open("answer", "the device gave no answer")
    found = launch.generated
    same = found == answer.ids
    first = next(
        (i for i, (a, b) in enumerate(zip(found, answer.ids, strict=False)) if a != b),
        min(len(found), len(answer.ids)),
    )
    if same or forced is None:
        differs = (
            f"the greedy answer differs from the validated run's from token {first + 1} on, of"
            f" {len(answer.ids)}"
        )
        return GateResult(
            metric="answer",
            op="==",
            threshold=None,
            value=None,
            passed=same,
            text="greedy tokens of the validated run's prompt",
            reason="" if same else differs,
        )
    _, gate = judge_answer(JudgedAnswer("device", answer.ids, forced))
    why = gate.reason or (
        ""
        if gate.passed
        else f"the validated run's answer isn't what this device would write: "
        f"{gate.value:.2f} nats per token, {gate.threshold:g} is allowed"
    )
    return GateResult("answer", gate.op, gate.threshold, gate.value, gate.passed, gate.text, why)


def backend_gate(manifest: Manifest, launch: LaunchResult) -> GateResult:
    """Whether the program runs in the backend that it was lowered for."""
    wanted = manifest.backend
    used = wanted == "portable" or any(n.lower().startswith(wanted) for n in launch.backends)
    names = ", ".join(launch.backends) or "none"
    return GateResult(
        metric="backend",
        op="==",
        threshold=None,
        value=None,
        passed=used,
        text=f"backend {wanted}",
        reason="" if used else f"the program uses {names}, not {wanted}",
    )


def rate_gate(rate: Rate, launches: Sequence[LaunchResult]) -> GateResult:
    """Whether a device is about as fast as the run's interval says."""
    name = rate.measure.name
    rates = [
        sample.tokens / sample.duration_s
        for launch in launches
        for sample in launch.samples
        if sample.metric == name and not sample.warmup
    ]
    floor = rate.low * (1 - RATE_TOLERANCE)
    found = statistics.median(rates) if rates else None
    passed = None if found is None else found >= floor
    reason = "" if passed else f"no window of {name} was timed"
    if found is not None and not passed:
        reason = f"{name} has {found:.1f} tok/s; the run's interval begins at {rate.low:.1f}"
    return GateResult(
        metric=name,
        op=">=",
        threshold=floor,
        value=found,
        passed=passed,
        text=f"{name} of the run less {RATE_TOLERANCE:.0%}",
        reason=reason,
    )


def smoke_gates(
    manifest: Manifest,
    launches: Sequence[LaunchResult],
    canary_error: float | None,
    forced: Matrix | None,
) -> list[GateResult]:
    """Judge one device; what couldn't be looked at has no verdict and says why."""
    gates = canary_gates(canary_error)
    if canary_error is None:
        gates.append(_open("canary", "no canary ran"))
    if not launches:
        return [*gates, _open("answer", "nothing was launched")]
    gates.append(backend_gate(manifest, launches[0]))
    if manifest.answer is None:
        gates.append(_open("answer", "no validated answer to compare with"))
    else:
        gates.append(answer_gate(manifest.answer, launches[0], forced))
    return gates


def _open(metric: str, why: str) -> GateResult:
    return GateResult(metric, "==", None, None, None, reason=why)
