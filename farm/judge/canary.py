"""The canary: a small fp32 program whose logits a device must give as PyTorch computes them.

In fp32 nothing amplifies rounding, so a kernel that is wrong by a percent can't hide in noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from farm.core.artifact import CanaryProgram, LogitsRef
from farm.core.result import GateResult
from farm.core.rules.launches import canary_passes
from farm.core.runtime import LaunchResult
from farm.core.tasks import CompareTask
from farm.judge.logits import Matrix

#: Largest difference of a logit; logits are of the order of 10, and healthy builds differ by 1e-5.
MAX_ABS_ERROR = 1e-4


def canary_error(task: CompareTask, open_ref: Callable[[LogitsRef], Matrix]) -> float | None:
    """Largest difference of any of the canary's logits; infinite where one is no number.

    None where the device ran no canary.

    Raises:
        StoreError, BadOutput: As `open_ref`.
    """
    if task.canary is None or task.run.canary is None:
        return None
    return launch_error(task.canary, task.run.canary, open_ref)


def launch_error(
    program: CanaryProgram, launch: LaunchResult, open_ref: Callable[[LogitsRef], Matrix]
) -> float:
    """Largest difference of any logit of one launch of the canary, as `canary_error`."""
    expected = open_ref(program.expected)
    given = dict(launch.logits)
    worst = 0.0
    for one in canary_passes(program):
        # A pass that is missing is as wrong as one of other numbers.
        found = open_ref(given[one.name]) if one.name in given else None
        rows = list(one.positions)
        if found is None or found.shape != (len(rows), expected.shape[1]):
            return math.inf
        difference = float(np.abs(found - expected[rows]).max())
        worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


def canary_gates(error: float | None) -> list[GateResult]:
    """Judge the difference; nothing where there is none."""
    if error is None:
        return []
    passed = error <= MAX_ABS_ERROR
    size = f"by {error:.3g}" if math.isfinite(error) else "in shape, or by NaN"
    return [
        GateResult(
            metric="canary",
            op="<=",
            threshold=MAX_ABS_ERROR,
            value=error if math.isfinite(error) else None,
            passed=passed,
            text="canary: a small fp32 program against PyTorch",
            reason=""
            if passed
            else f"the runner's kernels compute wrongly on this device: logits differ {size},"
            f" {MAX_ABS_ERROR:g} is allowed",
        )
    ]
