"""What one run says of a revision that ran beside a good one: a number, pairs, or nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

from farm.core.result import CellResult, Report
from farm.core.rules.bisection import Observation
from farm.core.rules.interval import pair_logs
from farm.judge.performance import by_launch

#: Numbers without scatter, of which less is better.
EXACT = ("perplexity", "artifact_bytes")
#: A revision is at fault for these; anything else ends the search, which can be gone on with.
_ITS_OWN = ("export_failed", "reference_failed", "no_runtime")
_RUNNER = ("RunnerCrashed", "RunnerTimeout", "BadOutput")


def at_fault(result: CellResult) -> bool:
    """Whether it is the revision that failed, not the device or its host."""
    error = result.attempts[-1].error if result.attempts else None
    crashed = error is not None and error.kind in _RUNNER
    return crashed or not set(result.flags).isdisjoint(_ITS_OWN)


def observed(
    place: int, now: Report, then: Report, metric: str
) -> Observation | tuple[float, ...] | CellResult:
    """What a run says of a revision: all, log ratios of pairs, or its result without any."""
    (result,), (good,) = now.results, then.results
    if "same_as_baseline" in result.flags:
        return Observation(place, 0.0, 0.0, 0)  # the same bytes: as good as the good one
    if metric in EXACT:
        new, old = _exact(result, metric), _exact(good, metric)
        return Observation(place, -math.log(new / old), 0.0, 0) if new and old else result
    own, other = _sides(result, metric)
    if not own or not other:
        return result
    sign = 1.0 if _is_rate(metric) else -1.0
    return tuple(sign * log for log in pair_logs(own, other))


def _is_rate(metric: str) -> bool:
    return metric[:2] in ("pp", "tg")


def _exact(result: CellResult, metric: str) -> float | None:
    if metric == "artifact_bytes":
        size = result.artifact.size_bytes
        return None if size is None else float(size + (result.artifact.data_size_bytes or 0))
    stages = result.correctness.stages if result.correctness else ()
    found = (s.perplexity_to for s in stages if (s.to, s.path) == ("device_pte", "decode"))
    return next((value for value in found if value is not None), None)


def _sides(
    result: CellResult, metric: str
) -> tuple[Mapping[int, list[float]], Mapping[int, list[float]]]:
    """Values of candidate and good revision by launch; empty where they can't be trusted."""
    if metric == "peak_rss_bytes":
        memory = result.memory
        both = (memory.launches_bytes, memory.baseline_launches_bytes)
        own, other = ({n: [float(v)] for n, v in enumerate(side)} for side in both)
        return own, other
    row = next((p for p in result.performance if (p.metric, p.regime) == (metric, "warm")), None)
    if row is None or row.trust == "invalid":
        return {}, {}
    return by_launch(row.samples), by_launch(row.samples, "baseline")
