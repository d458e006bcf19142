"""Which job events are of this run's current attempts; all others are dropped and counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from farm.core.events import JobEvent, JobProgress
from farm.core.runtime import AttemptId

log = logging.getLogger(__name__)


class Expected(NamedTuple):
    """What an event is held against."""

    run_id: str
    epoch: int
    #: Whether this run has planned the cell.
    known: bool
    #: The attempt that the event's device has now; None when it has none.
    running: AttemptId | None


#: What an event must be, by the word for one that is not; the first that fails names it.
CHECKS: dict[str, Callable[[AttemptId, Expected], bool]] = {
    "another run": lambda came, now: came.run_id == now.run_id,
    "another epoch": lambda came, now: came.epoch == now.epoch,
    "an unknown cell": lambda came, now: now.known,
    "a job that its device does not have": lambda came, now: (
        now.running is not None and came.job_id == now.running.job_id
    ),
    "another attempt": lambda came, now: now.running is None or came.attempt == now.running.attempt,
}


class Fence:
    """Lets the events of one epoch of one run through, and counts the others."""

    def __init__(self, run_id: str, epoch: int) -> None:
        self.run_id, self.epoch = run_id, epoch
        #: Dropped events by reason.
        self.dropped: Counter[str] = Counter()

    def drops(self, event: JobEvent, *, known: bool, running: AttemptId | None) -> bool:
        """Tell whether an event is none of a current attempt of this run; it is counted then."""
        came = event.attempt_id
        reason = self.refuses(came, known=known, running=running)
        if reason is None:
            return False
        log.log(
            logging.DEBUG if isinstance(event, JobProgress) else logging.WARNING,
            "dropped %s from %s of %s (run %s, epoch %s, attempt %s): it is of %s",
            type(event).__name__,
            event.device,
            came.job_id,
            came.run_id,
            came.epoch,
            came.attempt,
            reason,
        )
        return True

    def refuses(self, came: AttemptId, *, known: bool, running: AttemptId | None) -> str | None:
        """Return why an event is not let through, and count it; None when it is."""
        expected = Expected(self.run_id, self.epoch, known, running)
        for reason, holds in CHECKS.items():
            if not holds(came, expected):
                self.dropped[reason] += 1
                return reason
        return None
