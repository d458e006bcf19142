"""Tokens that timed windows chose: all equal, and begun as the checked logits say.

A runner promises equal bits for equal requests, whatever the number of threads. So every window of
a metric chooses the same tokens, in each pass, launch and regime, and the first of them is the most
likely one of logits that were checked, where a pass was fed alike. Logits of the later ones nobody
has: they hang on that promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from farm.core.result import GateResult
from farm.core.rules.launches import measures
from farm.core.runtime import Chosen, LaunchResult, Measure
from farm.core.spec import Workload
from farm.judge.compact import CompactLogits
from farm.judge.logits import Logits


def timed_token_gates(
    workload: Workload, launches: Sequence[LaunchResult], passes: dict[str, Logits]
) -> list[GateResult]:
    """Compare what the candidate's windows chose; nothing where no runner tells.

    Args:
        workload: What was timed.
        launches: All launches of the cell.
        passes: Logits of the device, by pass.
    """
    found = []
    for measure in measures(workload):
        windows = [
            (number, sample.chosen)
            for number, launch in enumerate(launches)
            if launch.arm == "candidate"
            for sample in launch.samples
            if sample.metric == measure.name and sample.chosen is not None
        ]
        if windows:
            found.append(_gate(measure, windows, _expected(measure, passes)))
    return found


def timed_tokens_condition(launches: Iterable[LaunchResult]) -> dict[str, str]:
    """How many windows told what they chose, as a condition of the result."""
    samples = [one for launch in launches for one in launch.samples if one.metric != "load"]
    told = sum(sample.chosen is not None for sample in samples)
    return {"timed_tokens": f"of {told} of {len(samples)} windows known"} if samples else {}


def _expected(measure: Measure, passes: dict[str, Logits]) -> tuple[str, int] | None:
    """The choice that checked logits give, and from which pass; None where none was fed alike.

    A window feeds its depth at once, or one token, and then its prefill at once.
    """
    fed = [length for length in (measure.depth, measure.prefill) if length] or [1]
    for name, logits in passes.items():
        if len(fed) == 1 and logits.positions and logits.positions[0] == fed[0] - 1:
            if isinstance(logits.values, CompactLogits):
                return (name, logits.values.top(0))
            row = np.asarray(logits.values[0])
            return (name, int(row.argmax())) if np.isfinite(row).all() else None
    return None


def _gate(
    measure: Measure, windows: Sequence[tuple[int, Chosen]], expected: tuple[str, int] | None
) -> GateResult:
    first = windows[0][1]
    reason = ""
    for launch, chosen in windows:
        reason = reason or _odd(launch, first, chosen)
    if not reason and expected is not None:
        begun = first.ids[0] if measure.prefill else first.begins
        if begun != expected[1]:
            reason = (
                f"timed windows begin with token {begun}, the checked logits ({expected[0]}) with"
                f" {expected[1]}"
            )
    known = "" if expected is None else ", begun as the checked logits say"
    return GateResult(
        metric="timed_tokens",
        op="==",
        threshold=0.0,
        value=float(bool(reason)),
        passed=not reason,
        text=f"device_pte ({measure.name}): equal tokens in {len(windows)} windows{known}",
        reason=reason,
    )


def _odd(launch: int, first: Chosen, chosen: Chosen) -> str:
    """Say where a window chose otherwise; empty where it didn't."""
    if chosen.odd is not None:
        each = max(len(chosen.ids), 1)
        return (
            f"token {chosen.odd % each} of pass {chosen.odd // each} of a timed window in launch"
            f" {launch} is another than in its first pass"
        )
    if chosen.begins != first.begins:
        return f"a timed window in launch {launch} began with another token"
    pairs = zip(first.ids, chosen.ids, strict=False)
    place = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
    if place is None and len(first.ids) != len(chosen.ids):
        place = min(len(first.ids), len(chosen.ids))
    if place is None:
        return ""
    return f"token {place} of a timed window in launch {launch} is another than in the first one"
