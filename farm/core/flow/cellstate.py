"""The state of one cell: the states, the one table of legal transitions, and its story."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from sys import intern
from typing import Any, NamedTuple

from farm.core.plan import Cell
from farm.core.result import AttemptReport
from farm.core.runtime import DeviceRunResult


class State(Enum):
    """Where a cell is. ARCHITECTURE.md has the same words and what each is left by."""

    WAITING_ARTIFACT = "waiting for its artifact"
    QUEUED = "queued"
    SUBMITTED = "submitted"
    PAUSED = "pausing before a retry"
    HELD = "held by somebody else"
    WAITING_HOST = "waiting for the reference and the host run"
    COMPARING = "comparing"
    DONE = "done"


#: Every legal transition, and what causes it.
TRANSITIONS: dict[tuple[State, State], str] = {
    (State.WAITING_ARTIFACT, State.QUEUED): "its program and token ids are there",
    (State.WAITING_ARTIFACT, State.DONE): "one of them failed, no runtime or device, or cancelled",
    (State.QUEUED, State.SUBMITTED): "an idle device that it may use",
    (State.QUEUED, State.DONE): "no device is left for it, no reference, or cancelled",
    (State.SUBMITTED, State.PAUSED): "an error that another try may cure",
    (State.SUBMITTED, State.HELD): "somebody else has the lease of the device",
    (State.SUBMITTED, State.WAITING_HOST): "measured; what judging needs is not there yet",
    (State.SUBMITTED, State.COMPARING): "measured; everything that judging needs is there",
    (State.SUBMITTED, State.DONE): "an error that no other try cures, no reference, or cancelled",
    (State.PAUSED, State.QUEUED): "the pause is over",
    (State.PAUSED, State.DONE): "no device is left for it, no reference, or cancelled",
    (State.HELD, State.QUEUED): "time to ask for the device again",
    (State.HELD, State.DONE): "no device is left for it, no reference, or cancelled",
    (State.WAITING_HOST, State.COMPARING): "reference and host run ended",
    (State.WAITING_HOST, State.DONE): "no reference, or cancelled",
    (State.COMPARING, State.DONE): "judged, could not be judged, or cancelled",
}


class FlowDefect(RuntimeError):
    """The flow contradicts itself: a defect of farm, never of a device or a config."""


class Step(NamedTuple):
    """One transition of a cell."""

    #: Number of the stimulus that caused it, from 1 in the order of their arrival.
    stimulus: int
    source: State
    target: State
    why: str


@dataclass(slots=True)
class CellProgress:
    """How far one cell is. Not to be confused with `Cell`, which is what was planned."""

    cell: Cell
    #: Devices that may run it; cells of one request share the set.
    devices: frozenset[str]
    state: State = State.WAITING_ARTIFACT
    #: Stimulus, state and reason of each transition, one after the other: a run may have 100,000
    #: cells, and this takes a third of what as many steps would.
    _story: tuple[Any, ...] = ()
    attempts: tuple[AttemptReport, ...] = ()
    #: Jobs made of it in this epoch, those that only met a held device included.
    submissions: int = 0
    #: Devices that failed it.
    avoid: frozenset[str] = frozenset()
    #: Device of the latest submission.
    device: str | None = None
    #: When the latest submission began on its device.
    started_at: str | None = None
    #: What the device measured; there once it is to be judged.
    run: DeviceRunResult | None = None

    @property
    def story(self) -> list[Step]:
        """Every transition so far."""
        found, source = [], State.WAITING_ARTIFACT
        parts = iter(self._story)
        for stimulus, target, why in zip(parts, parts, parts, strict=True):
            found.append(Step(stimulus, source, target, why))
            source = target
        return found

    def move(self, target: State, why: str, stimulus: int) -> None:
        """Go to another state.

        Raises:
            FlowDefect: The table has no such transition.
        """
        if (self.state, target) not in TRANSITIONS:
            before = "; ".join(f"{s.stimulus}: {s.target.value} ({s.why})" for s in self.story)
            raise FlowDefect(
                f"cell {self.cell.cell_id} can't go from `{self.state.value}` to "
                f"`{target.value}` ({why}, stimulus {stimulus}); before that: {before or 'nothing'}"
            )
        self._story += (stimulus, target, intern(why))
        self.state = target
