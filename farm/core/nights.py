"""What several nights say together: changes of level, and how often the gate was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LevelChange:
    """A night at which a metric of a cell moved to another level; see farm.core.rules.changes."""

    metric: str
    unit: str
    #: First run of the new level.
    run_id: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class MetricTrend:
    """The warm medians of one metric over the last nights, this one included; never judged."""

    metric: str
    unit: str
    #: Oldest first.
    runs: tuple[str, ...]
    #: None where a night's number is missing or invalid.
    medians: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class SelfChecked:
    """One cell that the gate was tried on tonight, judged as every other."""

    #: `same`: the cell against itself, where REGRESSED is false; `slower`: against a planted
    #: slower artifact, where anything else is a miss.
    kind: Literal["same", "slower"]
    run_id: str
    cell_id: str
    #: Verdict of the comparison; empty where there was none.
    verdict: str
    #: Whether the gate was right; None where it could not be tried.
    right: bool | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """How far the gate can be trusted, by its own nights."""

    tonight: tuple[SelfChecked, ...]
    #: Nights that are counted below, this one included.
    nights: int
    same: int
    false_regressed: int
    slower: int
    missed: int


def counted(tonight: Sequence[SelfChecked], past: Sequence[Sequence[SelfChecked]]) -> SelfCheck:
    """Count how often the gate was right, tonight and in earlier nights.

    Args:
        tonight: Checks of the newest night.
        past: Those of the nights before.
    """
    every = [one for night in (tonight, *past) for one in night if one.right is not None]
    return SelfCheck(
        tonight=tuple(tonight),
        nights=1 + len(past),
        same=sum(one.kind == "same" for one in every),
        false_regressed=sum(one.kind == "same" and not one.right for one in every),
        slower=sum(one.kind == "slower" for one in every),
        missed=sum(one.kind == "slower" and not one.right for one in every),
    )
