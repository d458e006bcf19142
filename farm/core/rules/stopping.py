"""How many launches are enough: decided from what they gave so far. Pure.

A cell stops when every rate's interval is narrow enough for the gates that judge it, or when its
budget would be spent. Few launches that scatter too much to be trusted are no answer either: a
flag shouldn't be the luck of three, so more are asked for. With a baseline arm the interval is that
of the paired ratio: enough is a loss beyond the accepted one excluded, or a loss so sure that it
counts in a night of hundreds of comparisons. A second sitting ends early for the former only: what
it confirms gets all of its time. Numbers that nobody judges take the least launches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from farm.core.events import Speeds
from farm.core.rules.family import SURE
from farm.core.rules.interval import (
    KNOWS_SPREAD,
    LEAST_PAIRS,
    MAX_SPREAD,
    SEES_DRIFT,
    ByLaunch,
    Interval,
    launch_logs,
    mean_interval,
    pair_logs,
    pair_statistics,
    spread,
    t975,
)
from farm.core.runtime import Arm, LaunchPolicy, LaunchResult, Stop


def decide(policy: LaunchPolicy, done: Sequence[LaunchResult], spent_s: float) -> Stop | None:
    """Say whether the launches of a policy are enough.

    Args:
        policy: What is repeated, and until when.
        done: Launches of the policy so far, whole blocks.
        spent_s: Time that they took, seconds.

    Returns:
        Why to stop; None: another block is needed.
    """
    if not done:
        return None
    blocks = len(done) // len(policy.block)
    count = blocks * policy.per_block
    if count >= policy.most == policy.least:
        return Stop("fixed", f"{_launches(count)}, as asked for")
    if not policy.asks and count >= policy.least:
        return Stop("fixed", f"{_launches(count)}: no gate, baseline or precision asks for more")
    open_questions = undecided(policy, done)
    if count >= policy.least and not open_questions and _is_look(policy, count):
        return Stop("precise", f"{_launches(count)}: {_enough(policy)}")
    missing = "; ".join(open_questions[:3]) or f"fewer than {policy.least} launches"
    if count >= policy.most:
        return Stop("most", f"{_launches(count)}, the most allowed: {missing}")
    if spent_s + spent_s / blocks > policy.budget_s:
        return Stop("budget", f"{_launches(count)}, {policy.budget_s:g} s spent: {missing}")
    return None


def _is_look(policy: LaunchPolicy, count: int) -> bool:
    """Whether an interval that is narrow at this count may be believed.

    That of a device that drifts is narrow at some moments by luck: from `SEES_DRIFT` launches on it
    is looked at when their number has doubled. A paired ratio doesn't drift.
    """
    return policy.paired or count < SEES_DRIFT or (count & (count - 1)) == 0


def undecided(policy: LaunchPolicy, done: Sequence[LaunchResult]) -> list[str]:
    """Name each rate whose interval is still too wide, and how wide it is."""
    found = []
    for metric in dict.fromkeys(m.name for request in policy.block for m in request.measures):
        candidate = rates_by_launch(done, metric, "candidate")
        if not candidate:
            continue  # a window without a rate: more launches won't give one
        own = mean_interval(launch_logs(candidate), looked=True)
        if policy.paired:
            baseline = rates_by_launch(done, metric, "baseline")
            why = _pairs_open(candidate, baseline, policy) if baseline else None
        else:
            why = None if policy.precision is None else _width_open(own, policy.precision)
            why = why or (_spread_open(candidate) if policy.judged else None)
        why = why or _bound_open(own, [value for name, value in policy.bounds if name == metric])
        if why:
            found.append(f"{metric} {why}")
    return found


def rates_by_launch(done: Iterable[LaunchResult], metric: str, arm: Arm) -> dict[int, list[float]]:
    """Tokens per second of one metric's windows, by launch, warm-ups left out."""
    found: dict[int, list[float]] = {}
    for number, launch in enumerate(done):
        values = [
            sample.tokens / sample.duration_s
            for sample in launch.samples
            if sample.metric == metric and not sample.warmup and sample.duration_s > 0
        ]
        if launch.arm == arm and values and min(values) > 0:
            # Arms that worked in turn share the number of their launch.
            found[launch.samples[0].launch if launch.in_turn else number] = values
    return found


def speeds(policy: LaunchPolicy, done: Sequence[LaunchResult]) -> Speeds:
    """What people are told of launches so far."""
    found = []
    for metric in dict.fromkeys(m.name for request in policy.block for m in request.measures):
        if candidate := rates_by_launch(done, metric, "candidate"):
            own = mean_interval(launch_logs(candidate), looked=True)
            half = None if own.half is None else math.expm1(own.half)
            found.append((metric, math.exp(own.mean), half))
    return tuple(found)


def _width_open(own: Interval, precision: float) -> str | None:
    if own.half is None:
        return "has no interval"
    half = math.expm1(own.half)
    return f"is known to ±{half:.1%}, wanted ±{precision:.1%}" if half > precision else None


def _spread_open(candidate: ByLaunch) -> str | None:
    found = spread(candidate) or 0.0
    if found <= MAX_SPREAD or len(candidate) >= KNOWS_SPREAD:
        return None
    return (
        f"scatters by {found:.0%}, which {len(candidate)} launches can't tell from {MAX_SPREAD:.0%}"
    )


def _pairs_open(candidate: ByLaunch, baseline: ByLaunch, policy: LaunchPolicy) -> str | None:
    logs = pair_logs(candidate, baseline)
    if len(logs) < LEAST_PAIRS:
        return "has too few pairs"
    found = pair_statistics(logs, looked=True)
    half = t975(found.df) * found.error
    low, high = math.exp(found.mean - half), math.exp(found.mean + half)
    bound = 1 - policy.regress
    if low >= bound or (not policy.confirms and found.tail(math.log(bound)) <= SURE):
        return None
    return f"is {low:.3f} to {high:.3f} of the baseline, the bound is {bound:.3f}"


def _bound_open(own: Interval, bounds: Sequence[float]) -> str | None:
    for bound in bounds:
        if own.half is None:
            return "has no interval"
        if bound > 0 and abs(own.mean - math.log(bound)) <= own.half:
            return f"can't be told from its bound {bound:g}"
    return None


def _enough(policy: LaunchPolicy) -> str:
    if policy.paired:
        return f"every ratio is on one side of {1 - policy.regress:.3f}"
    if policy.precision is None:
        return "every gate on a rate is decided"
    return f"every rate is known to ±{policy.precision:.1%}"


def _launches(count: int) -> str:
    return f"{count} launch{'' if count == 1 else 'es'}"
