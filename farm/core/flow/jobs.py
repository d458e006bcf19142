"""What becomes of cells on devices: queued, submitted, tried again, held back, or measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from farm.core.durations import duration_text
from farm.core.errors import FarmError, LeaseError
from farm.core.events import JobFinished, JobStarted
from farm.core.flow import outcomes
from farm.core.flow.cells import Cells
from farm.core.flow.cellstate import CellProgress, State
from farm.core.flow.ends import Ends
from farm.core.flow.placement import Placement
from farm.core.flow.stimuli import Instruction, RetryLater, SubmitJob
from farm.core.lease import HOLD_RUN
from farm.core.runtime import DeviceJob

#: Attempts of a cell that infrastructure may cost, first one included.
MAX_ATTEMPTS = 3
#: Pause before a device that another run has is asked for again, seconds.
LEASE_PAUSE_S = 5.0
#: The same of one that a person holds, at most: shorter than a device remembers who asked.
HOLD_PAUSE_S = 20.0
RETRY_PAUSE_S = 2.0


class Jobs:
    """The device side of a run.

    Args:
        cells: The cells.
        placement: Which of them may run where.
        ends: Ends cells.
        make: Makes the job of a cell for a device.
        compare: Has a cell that was measured judged, given why now.
        hold_limit_s: How long a person who holds a device is waited for.
    """

    def __init__(
        self,
        cells: Cells,
        placement: Placement,
        ends: Ends,
        *,
        make: Callable[[CellProgress, str], DeviceJob],
        compare: Callable[[CellProgress, str], list[Instruction]],
        hold_limit_s: float,
    ) -> None:
        self._cells, self._placement, self._ends = cells, placement, ends
        self._roster = placement.roster
        self._make, self._compare = make, compare
        self._hold_limit_s = hold_limit_s

    def queue(self, one: CellProgress, why: str) -> list[Instruction]:
        """Let a cell wait for a device; one that none is left for ends at once."""
        self._cells.move(one, State.QUEUED, why)
        return self.place([one.cell.cell_id])

    def again(self, one: CellProgress) -> list[Instruction]:
        """Go on after the pause of a cell."""
        refused = one.device
        waited = refused is not None and self._roster.asks_again(refused, one.cell.cell_id)
        out: list[Instruction] = []
        if one.state in (State.PAUSED, State.HELD):
            out = self.queue(one, "the pause is over")
        if waited and refused is not None:
            # Another device that is idle comes first: this one may be held still.
            out += self.assign()
            self._placement.offer(refused)
        return out

    def place(self, cell_ids: Iterable[str]) -> list[Instruction]:
        """Let queued cells wait for a device; those that none is left for end at once."""
        out: list[Instruction] = []
        for one in map(self._cells.__getitem__, cell_ids):
            if not self._placement.place(one):
                out += self._nowhere(one)
        return out

    def device_changed(self, name: str) -> list[Instruction]:
        """A device came back, got free or went away; cells that nothing is left for end."""
        self._placement.offer(name)
        if self._roster.is_alive(name):
            return []
        out = self.place(self._placement.left_without(name))
        # Nobody has to wait for an artifact that no device is left to run.
        for one in self._cells.waiting_for(name):
            if not any(map(self._roster.is_alive, one.cell.devices)):
                out += self._nowhere(one)
        return out

    def started(self, event: JobStarted) -> None:
        """Note when a job began."""
        one = self._cells[event.job_id]
        if one.state is State.SUBMITTED:
            one.started_at = one.started_at or event.at

    def ended(self, event: JobFinished) -> list[Instruction]:
        """Take in what a job gave."""
        error = event.error
        if error is None and event.result is None:
            error = no_result(event.job_id)
        self._roster.ended(event.device, error)
        one = self._cells[event.job_id]
        if one.state is State.DONE:  # interrupted, cancelled, or without a reference meanwhile
            return self.device_changed(event.device)
        out: list[Instruction] = []
        if isinstance(error, LeaseError):
            out += self._held(one, error)
        else:
            one.attempts += (outcomes.attempt(event, one.started_at, error),)
            if error is None:
                one.run = event.result
                self._placement.has_artifact(event.device, one.cell.artifact)
                out += self._compare(one, "measured")
            else:
                out += self._attempt_failed(one, error)
        return out + self.device_changed(event.device)

    def assign(self) -> list[Instruction]:
        """Submit what idle devices can take."""
        out: list[Instruction] = []
        while pairs := self._placement.matcher.assign():
            given = [(self._cells[cell_id], name) for cell_id, name in pairs]
            out += [self._submit(one, name) for one, name in given]
            out += self.place(self._placement.crowded_out(one.cell.group for one, _ in given))
        return out

    def _submit(self, one: CellProgress, name: str) -> SubmitJob:
        one.device, one.started_at = name, None
        one.submissions += 1
        job = self._make(one, name)
        self._cells.move(one, State.SUBMITTED, f"attempt {one.submissions} on {name}")
        self._roster.began(name, job.attempt_id)
        return SubmitJob(job, self._roster[name].entry.site)

    def _held(self, one: CellProgress, error: LeaseError) -> list[Instruction]:
        """Ask again later: waiting for somebody else is no failed attempt of ours.

        No other cell asks for the device meanwhile. Another run takes turns with this one; a
        person may keep a device for days, and the cells that have no other one say so in the end.
        """
        name, by_person = one.device, error.context.get("run") in (None, HOLD_RUN)
        assert name is not None, "a cell with a job has a device"
        waited_s = self._roster.waited_s(name) if by_person else 0.0
        if waited_s < self._hold_limit_s:
            pause_s = min(HOLD_PAUSE_S, LEASE_PAUSE_S + waited_s)
            self._roster.refused(name, one.cell.cell_id, waited_s + pause_s if by_person else 0.0)
            return [self._later(one, State.HELD, error, pause_s)]
        one.avoid |= {name}
        taken = self._placement.matcher.taken(one.cell.group)
        if any(self._is_waited_for(other) for other in one.devices - {name} - set(taken)):
            return [self._later(one, State.HELD, error, RETRY_PAUSE_S)]
        text = f"{error.message}; after {duration_text(waited_s)} it was waited for no longer"
        late = LeaseError(f"{text} (limits.job_s)", **error.context)
        return self._ends.errored(one, late, "device_held")

    def _is_waited_for(self, name: str) -> bool:
        return self._roster.is_alive(name) and self._roster.waited_s(name) < self._hold_limit_s

    def _attempt_failed(self, one: CellProgress, error: FarmError) -> list[Instruction]:
        if not error.retryable or len(one.attempts) >= MAX_ATTEMPTS:
            return self._ends.errored(one, error, outcomes.failure_flag(error))
        assert one.device is not None, "a cell with attempts had a device"
        one.avoid |= {one.device}
        return [self._later(one, State.PAUSED, error, RETRY_PAUSE_S * len(one.attempts))]

    def _later(
        self, one: CellProgress, state: State, error: FarmError, delay_s: float
    ) -> Instruction:
        """Give the device back and try again after a pause."""
        self._cells.move(one, state, error.message)
        self._placement.give_back(one)
        return RetryLater(one.cell.cell_id, delay_s)

    def _nowhere(self, one: CellProgress) -> list[Instruction]:
        """End a cell that no device is left for, with what each of them lacks."""
        taken = self._placement.matcher.taken(one.cell.group)
        return self._ends.errored(one, *self._roster.why_gone(one.cell, taken))


def no_result(name: str) -> FarmError:
    """Return the error of what ended without saying anything."""
    return FarmError(f"{name}: ended with neither a result of its kind nor an error")
