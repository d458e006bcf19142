"""How a lease is named for people: a person's hold, or the run that has the device. Pure."""

from __future__ import annotations

from farm.core.durations import duration_text

#: A hold is a lease with this run id.
HOLD_RUN = "hold"


def holder_text(owner: str | None, run_id: str | None, reason: str, left_s: float) -> str:
    """Who has a device: a person by name, reason and time left; a run by its id."""
    if run_id != HOLD_RUN:
        return f"leased by {owner} for run {run_id}"
    why = f": {reason}" if reason else ""
    return f"held by {owner}{why}, {duration_text(left_s)} left"
