"""One program in several drivers: who feeds it wrongly, if anybody?

Logits of the same runtime, and of farm-runner, are compared with what one token at a time gives;
TextLLMRunner gives ids alone, and has to choose those of a loop that feeds the same kernels alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.diagnosis import DriverRow
from farm.judge.logits import Logits, Matrix, every_position
from farm.judge.metrics import compare

#: TextLLMRunner, as rows call it.
TEXT_RUNNER = "TextLLMRunner"


def by_logits(
    name: str, single: Matrix, other: Logits, tokens: Sequence[int], most_kl: float
) -> DriverRow:
    """Compare a driver's logits with those of one token at a time.

    Args:
        name: The driver.
        single: Rows of every position, by the Python runtime.
        other: The driver's rows.
        tokens: What both were fed.
        most_kl: Mean KL that rounding may make.
    """
    if not other.consistent or other.values.shape[1] != single.shape[1]:
        return DriverRow(name, True, f"logits of shape {other.values.shape}")
    found = compare(every_position(single), other, tokens)
    if found.kl_mean is None:
        return DriverRow(name, True, "its logits, or those of one token at a time, aren't finite")
    said = f"mean KL {found.kl_mean:.2g} to one token at a time, {most_kl:g} is allowed"
    return DriverRow(name, found.kl_mean > most_kl, said)


def by_ids(ours: Sequence[int], theirs: Sequence[int], count: int) -> DriverRow:
    """Compare TextLLMRunner's continuation with our loop's; equal kernels choose equal ids.

    Args:
        ours: Up to `count` ids; a stop id is the last one.
        theirs: What it told; it may leave out the stop id, or go on after it.
        count: Ids that were asked for.
    """
    stopped = len(ours) < count
    needed = ours[:-1] if stopped else ours
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if place is None and len(theirs) >= len(needed):
        return DriverRow(TEXT_RUNNER, False, f"the same {len(needed)} ids as a plain loop")
    at = len(theirs) if place is None else place
    gave = "nothing" if at >= len(theirs) else f"id {theirs[at]}"
    said = f"after {at} of {len(ours)} ids it gives {gave}, a plain loop id {ours[at]}"
    return DriverRow(TEXT_RUNNER, True, said)
