"""What judging a finished device run gives, before it becomes the result of its cell."""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.asked import AnswerReport
from farm.core.result import (
    CorrectnessReport,
    Decision,
    EnergyReport,
    MemoryReport,
    Outcome,
    PerformanceReport,
)
from farm.core.sustained import Sustained
from farm.core.telemetry import LaunchState
from farm.core.work import NOT_COUNTED, WorkReport


@dataclass(frozen=True, slots=True)
class Judgement:
    """What judging one finished device run gives: the judged part of a CellResult."""

    outcome: Outcome
    reason: str
    flags: tuple[str, ...]
    correctness: CorrectnessReport | None
    performance: tuple[PerformanceReport, ...]
    memory: MemoryReport
    energy: EnergyReport
    conditions: dict[str, str]
    backend_effective: str | None = None
    work: WorkReport = NOT_COUNTED
    correctness_decision: Decision = "undecided"
    speed_decision: Decision = "not gated"
    sustained: Sustained | None = None
    launches: tuple[LaunchState, ...] = ()
    answers: tuple[AnswerReport, ...] = ()
