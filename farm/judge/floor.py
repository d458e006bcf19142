"""The noise floor: how far one artifact moves when nothing but the order of its sums changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from farm.core.errors import BadOutput
from farm.core.hostrun import IsaControl, NoiseFloor, PathFloor
from farm.judge.logits import Logits
from farm.judge.metrics import Comparison, compare


def noise_floor(
    normal: Mapping[str, Logits], perturbed: Sequence[Mapping[str, Logits]], tokens: Sequence[int]
) -> NoiseFloor | None:
    """Compare perturbed launches with the normal one, path by path.

    Args:
        normal: Logits by path.
        perturbed: The same of each other order of sums.
        tokens: The teacher-forced token ids.

    Returns:
        None where nothing was perturbed.

    Raises:
        BadOutput: Logits that aren't finite.
    """
    found: dict[str, list[Comparison]] = {}
    for launch in perturbed:
        for path, logits in launch.items():
            metrics = compare(normal[path], logits, tokens)
            if metrics.kl_mean is None:
                raise BadOutput(f"logits of pass {path} are not finite numbers")
            found.setdefault(path, []).append(metrics)
    if not found:
        return None
    means = tuple((path, _mean([one.kl_mean for one in all_])) for path, all_ in found.items())
    return NoiseFloor(
        means, len(perturbed), tuple(_figures(path, all_) for path, all_ in found.items())
    )


def isa_control(
    isa: str, normal: Mapping[str, Logits], other: Mapping[str, Logits], tokens: Sequence[int]
) -> IsaControl:
    """Hold what other code of XNNPACK gave on the same CPU against the normal launch.

    Args:
        isa: Which code.
        normal: Logits by path.
        other: The same through that code.
        tokens: The teacher-forced token ids.

    Raises:
        BadOutput: Logits that aren't finite.
    """
    found = noise_floor(normal, [other], tokens)
    return IsaControl(isa, () if found is None else found.kl_mean)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _figures(path: str, found: Sequence[Comparison]) -> PathFloor:
    related = [one.relation for one in found if one.relation is not None]
    moved = [one.perplexity_change for one in found if one.perplexity_change is not None]
    return PathFloor(
        path=path,
        max_abs_error=max((one.max_abs_error or 0.0 for one in found), default=0.0),
        slope=max((abs(one.slope) for one in related), default=0.0),
        r_squared=max((one.r_squared for one in related), default=0.0),
        column_ratio=max((one.column_ratio for one in related), default=1.0),
        log_perplexity=math.sqrt(sum(one.log_ratio**2 for one in moved) / len(moved))
        if moved
        else None,
    )
