"""Bug or rounding: what the difference of two builds looks like, where their bits may differ.

Rounding has no direction, spares no token id and grows no single logit far beyond the others. The
yardstick is the same artifact on the same text under order-only perturbations.
"""

from __future__ import annotations

from farm.core.hostrun import PathFloor
from farm.core.result import GateResult
from farm.judge.metrics import Comparison

#: Slope and R2 of the difference on the logits, against the largest of the perturbations; both have
#: to be beyond. Rounding of SmolLM2-135M (8da4w) has slopes of 0.002-0.004, tiny ones of fp32 1e-5.
DIRECTION_FACTOR = 4.0
SLOPE_NOTHING, R_SQUARED_NOTHING = 0.005, 0.01
#: The token id that differs most, in medians of all: 2.0-2.2 there.
COLUMN_FACTOR, COLUMN_NOTHING = 2.0, 4.0
#: Largest difference of a logit up to which no token id stands out: what fp32 rounds. Where most
#: ids are exact, the last bit of one is hundreds of medians.
COLUMN_LEAST = 1e-4
#: Largest difference of a logit: 2.8-3.1 there, in fp32 1e-4.
ERROR_FACTOR, ERROR_NOTHING = 2.0, 1e-3
#: Where activations are rounded while running and the perturbations flipped hardly any, another
#: CPU may flip some: one flip is one direction, along which ids differ by as much as a normal
#: distribution's maximum from its median, and it moves a small model's logits by tenths.
FEW_FLIPS_COLUMN, FEW_FLIPS_ERROR, FEW_FLIPS_SLOPE = 12.0, 1.0, 0.02


def rounding_gates(
    title: str, comparison: Comparison, floor: PathFloor, *, few_flips: bool
) -> list[GateResult]:
    """Judge the difference of two builds of one model; nothing where nothing differs.

    Args:
        title: The stages, for people.
        comparison: Of enough rows.
        floor: The perturbations.
        few_flips: They say little of what rounding does to this model.
    """
    relation, error = comparison.relation, comparison.max_abs_error
    if relation is None or error is None:
        return []
    least = FEW_FLIPS_SLOPE if few_flips else SLOPE_NOTHING
    slope = max(DIRECTION_FACTOR * floor.slope, least)
    explained = max(DIRECTION_FACTOR * floor.r_squared, R_SQUARED_NOTHING)
    directed = abs(relation.slope) > slope and relation.r_squared > explained
    least = FEW_FLIPS_COLUMN if few_flips else COLUMN_NOTHING
    columns = max(COLUMN_FACTOR * floor.column_ratio, least)
    spread = relation.column_ratio <= columns or error <= COLUMN_LEAST
    least = FEW_FLIPS_ERROR if few_flips else ERROR_NOTHING
    largest = max(ERROR_FACTOR * floor.max_abs_error, least)
    return [
        GateResult(
            metric="direction",
            op="<=",
            threshold=slope,
            value=abs(relation.slope),
            passed=not directed,
            text=f"{title}: rounding has no direction",
            reason=f"the difference follows the logits: slope {relation.slope:+.2g},"
            f" R2 {relation.r_squared:.2g}; rounding here has at most {slope:.2g} and"
            f" {explained:.2g}"
            if directed
            else "",
        ),
        GateResult(
            metric="vocabulary",
            op="<=",
            threshold=columns,
            value=relation.column_ratio,
            passed=spread,
            text=f"{title}: every token id",
            reason=""
            if relation.column_ratio <= columns
            else f"no logit differs by more than {COLUMN_LEAST:g}"
            if spread
            else f"token id {relation.column} differs {relation.column_ratio:.3g} times as much as"
            f" the median one, {columns:.3g} is allowed",
        ),
        GateResult(
            metric="max_abs_error",
            op="<=",
            threshold=largest,
            value=error,
            passed=error <= largest,
            text=f"{title}: largest difference of a logit",
        ),
    ]
