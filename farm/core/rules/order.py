"""In which order work goes through two stages so that all of it is done soonest. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")


def flow_shop_order(stages: Mapping[K, tuple[float, float]]) -> list[K]:
    """Return Johnson's order: no other is done sooner where each stage does one piece at a time.

    S. M. Johnson, "Optimal two- and three-stage production schedules with setup times included",
    1954. Pieces that are alike stay in the order that they came in.

    Args:
        stages: Seconds of the first and of the second stage, by piece.
    """
    quick = [key for key, (first, second) in stages.items() if first <= second]
    slow = [key for key, (first, second) in stages.items() if first > second]
    quick.sort(key=lambda key: stages[key][0])
    slow.sort(key=lambda key: -stages[key][1])
    return quick + slow
