"""One layer of the artifact on recorded inputs: what it adds to them, device against PyTorch.

PyTorch computes with the recipe's weights and 8-bit activations, so only the order of sums is left.
SmolLM2-135M (8da4w) agrees to 1e-13, but for a position where it decides how one activation is
rounded (0.99986): the mean is judged (0.999995), not the worst. The inputs, far larger than what
the layer adds, are taken out: attention scores 2 % too large give 0.9992, with them 0.99996.
A cosine is blind to a factor that all of the layer's sum has in common: that is judged by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from farm.core.artifact import LogitsRef
from farm.core.result import Canary, GateResult
from farm.core.rules.launches import replay_passes
from farm.core.tasks import CompareTask
from farm.judge.logits import Matrix

_Wide: TypeAlias = npt.NDArray[np.float64]

#: Lowest accepted mean cosine.
MIN_COSINE = 0.9999
#: Largest difference from 1 of what the device's layer holds of PyTorch's, by least squares over
#: all positions. A cosine of MIN_COSINE leaves 1.4 % of noise, which has no part in it.
MAX_GAIN_ERROR = 0.005


@dataclass(frozen=True, slots=True)
class LayerCosine:
    """How well a device's layer agrees; NaN where it gave no numbers or not all rows."""

    #: Mean over positions, of the path where it is lowest.
    mean: float
    #: Of the worst position on any path.
    lowest: float
    #: How much of PyTorch's sums the device's hold, of the path where it is farthest from 1.
    gain: float = 1.0


def layer_cosine(task: CompareTask, open_ref: Callable[[LogitsRef], Matrix]) -> LayerCosine | None:
    """Compare the layer that a device replayed; None where it replayed none.

    Raises:
        StoreError, BadOutput: As `open_ref`.
    """
    replay, run = task.export.replay, task.run.replay
    if replay is None or run is None:
        return None
    inputs, added = (open_ref(ref).astype(np.float64) for ref in (replay.inputs, replay.added))
    given = dict(run.logits)
    means, lows, gains = [], [], []
    for one in replay_passes(replay):
        rows = list(one.positions)
        found = open_ref(given[one.name]) if one.name in given else None
        if found is None or found.shape != (len(rows), inputs.shape[1]):
            return LayerCosine(math.nan, math.nan, math.nan)
        ours, theirs = found - inputs[rows], added[rows]
        cosines = _row_cosines(ours, theirs)
        gains.append(float(np.vdot(ours, theirs) / np.vdot(theirs, theirs)))
        means.append(float(cosines.mean()))
        lows.append(float(cosines.min()))
    # NumPy's minimum keeps NaN, Python's may lose it.
    farthest = max(gains, key=lambda gain: math.inf if math.isnan(gain) else abs(gain - 1.0))
    return LayerCosine(float(np.min(means)), float(np.min(lows)), farthest)


def _row_cosines(one: _Wide, other: _Wide) -> _Wide:
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
        result: _Wide = (one * other).sum(axis=1) / norms
    return result


def replay_gates(found: LayerCosine | None) -> list[GateResult]:
    """Judge the cosine; nothing where there is none."""
    if found is None:
        return []
    known = math.isfinite(found.mean) and math.isfinite(found.gain)
    what = f"cosine {found.mean:.6f}" if known else "it gave NaN, or not every row"
    scaled = f"it gives {found.gain:.4f} of what it should" if known else what
    wrong = "a layer of the model computes wrongly on this device"
    alike, whole = found.mean >= MIN_COSINE, abs(found.gain - 1.0) <= MAX_GAIN_ERROR
    return [
        GateResult(
            metric="layer_replay",
            op=">=",
            threshold=MIN_COSINE,
            value=found.mean if known else None,
            passed=alike,
            text="canary: one layer of the model on recorded inputs against PyTorch",
            reason="" if alike else f"{wrong}: {what}, {MIN_COSINE:g} is needed",
        ),
        GateResult(
            metric="layer_gain",
            op="<=",
            threshold=MAX_GAIN_ERROR,
            value=abs(found.gain - 1.0) if known else None,
            passed=whole,
            text="canary: one layer of the model, its size against PyTorch's",
            reason="" if whole else f"{wrong}: {scaled}, {MAX_GAIN_ERROR:.1%} off is allowed",
        ),
    ]


def canary_report(
    task: CompareTask, error: float | None, found: LayerCosine | None
) -> Canary | None:
    """Say what the checks of the kernels gave; None where no kernel was checked.

    Args:
        task: The run.
        error: As farm.judge.canary.canary_error gives it.
        found: As layer_cosine gives it.
    """
    if task.run.canary is None and task.run.replay is None:
        return None
    replay, reason = task.export.replay, ""
    if found is None:
        reason = task.export.no_replay or "this run compared no layer"
    elif not math.isfinite(found.mean):
        reason = "the device gave NaN, or not every row"
    return Canary(
        max_abs_error=_finite(error),
        layer_cosine=None if found is None else _finite(found.mean),
        layer_cosine_min=None if found is None else _finite(found.lowest),
        layer_gain=None if found is None else _finite(found.gain),
        layer=None if found is None or replay is None else replay.layer,
        layer_reason=reason,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
