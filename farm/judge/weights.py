"""Weights of a written artifact against their sources: does each hold what its integers allow?

The bounds are arithmetic, not experience. A symmetric integer of b bits with its group's ideal
scale is off by half a step at most; what a stored scale and half-precision sources round comes on
top. So one zeroed scale, a group of another width, or a scale that is 1 % off shows in whichever
tensor it is, however little it does to logits.
"""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.artifact import ExportResult, TensorCheck
from farm.core.result import GateResult

#: Rounding of the comparison itself, in steps.
_STEPS_SLACK = 2e-3
#: The same of a scale, relative; scales of rows are float32.
_SCALE_SLACK = 1e-4
#: Largest difference of what a tensor holds by least squares from all of it. The greatest weight
#: of a group loses half a step: with groups of 32 that takes half a percent of 4-bit weights.
_GAIN = {4: 0.02, 8: 1e-3}
#: How far a search (HQQ) moves a scale from the one that the greatest weight asks for; 17 % at most
#: for the weights of tests/integration/models/test_searched_scales.py.
_SEARCHED = 0.25
#: Relative error of what is stored as float32.
_FLOAT_ERROR = 1e-6
#: Tensors that a message names.
_NAMED = 3


def weight_fault(check: TensorCheck) -> str:
    """Say what is wrong with a tensor of an artifact; empty where nothing is."""
    if check.reason:
        return check.reason
    if check.error is None or check.gain is None:
        return "it was not compared"
    if check.bits is None:
        return "" if check.error <= _FLOAT_ERROR else f"relative error {check.error:.2g}"
    if check.steps is None or check.scale_error is None:
        return "its scales were not compared"
    levels = 2 ** (check.bits - 1)
    rounding = check.scale_rounding + 2 * check.source_rounding
    far = _SEARCHED if check.searched else rounding + _SCALE_SLACK
    if not check.scale_error <= far:
        return f"a scale is off by {check.scale_error:.1%}, or the groups are of another width"
    allowed = 0.5 + levels * rounding + _STEPS_SLACK
    if not check.steps <= allowed:
        return f"a weight is off by {check.steps:.3g} steps, {allowed:.3g} is allowed"
    if not abs(check.gain - 1) <= _GAIN[check.bits]:
        return f"it holds {check.gain:.4f} of its source"
    return ""


def weight_gates(export: ExportResult) -> list[GateResult]:
    """Judge all tensors of an artifact; nothing where none was read back."""
    if not export.weights:
        return []
    wrong = {check.name: fault for check in export.weights if (fault := weight_fault(check))}
    named = [f"{name}: {fault}" for name, fault in list(wrong.items())[:_NAMED]]
    more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    return [
        GateResult(
            metric="weights",
            op="==",
            threshold=0.0,
            value=float(len(wrong)),
            passed=not wrong,
            text=f"source -> artifact: {len(export.weights)} tensors as their integers allow",
            reason="; ".join(named) + more,
        )
    ]


def weights_condition(export: ExportResult) -> dict[str, str]:
    """What was looked at, as a condition of the result."""
    if not export.weights:
        return {"weights": f"not read back: {export.no_weights}"}
    steps = [(check.steps, check.name) for check in export.weights if check.steps is not None]
    worst = "" if not steps else "; worst {:.3f} steps in {}".format(*max(steps))
    return {"weights": f"{_count(export.weights)} read back from the artifact{worst}"}


def _count(checks: Sequence[TensorCheck]) -> str:
    return f"{len(checks)} tensors"
