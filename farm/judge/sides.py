"""The sides of one cell, judged apart: is it right, is it fast enough, does it fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farm.core.result import Decision, GateResult, Outcome, PerformanceReport
from farm.core.rules.verdict import decision, outcome_of
from farm.judge.gates import describe


@dataclass(frozen=True, slots=True)
class Sides:
    """Decided gates of a cell, apart: correctness and speed are two questions."""

    correctness: Sequence[GateResult]
    speed: Sequence[GateResult]
    memory: Sequence[GateResult]
    #: Why no speed of the cell can be trusted; empty where one can, or none was timed.
    untrusted: str = ""

    @property
    def correctness_decision(self) -> Decision:
        """What the gates on correctness say together."""
        return decision(self.correctness)

    @property
    def speed_decision(self) -> Decision:
        """Undecided too where a gate stands on it and no speed can be trusted."""
        found = decision(self.speed)
        return "undecided" if self.untrusted and found == "passed" else found

    def outcome(self) -> tuple[Outcome, str]:
        """Outcome and a sentence that says why."""
        found = outcome_of(self.correctness_decision, self.speed_decision, decision(self.memory))
        gates = [*self.correctness, *self.speed, *self.memory]
        wanted = {"failed": False, "inconclusive": None}
        telling = [g for g in gates if found in wanted and g.passed is wanted[found]]
        if telling:
            return found, _sentence(telling)
        return found, self.untrusted if found == "inconclusive" else ""


def untrusted(performance: Sequence[PerformanceReport], *, emulated: bool) -> str:
    """Say why not one rate of a cell can be trusted; empty where one can, or none was timed.

    Speed of an emulated instruction set is recorded and nobody's question: it is not gated.
    """
    warm = [p for p in performance if p.regime == "warm" and p.unit == "tok/s" and not p.reason]
    if not warm or emulated or any(p.trust != "invalid" for p in warm):
        return ""
    fired = dict.fromkeys(n for p in warm for n, state in p.guards.items() if state == "flagged")
    return f"no speed can be trusted: {', '.join(fired) or 'nothing was measured'}"


def _sentence(gates: Sequence[GateResult]) -> str:
    first = describe(gates[0])
    return first if len(gates) == 1 else f"{first} (and {len(gates) - 1} more)"
