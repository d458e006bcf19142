"""Who is next on a device that several want: people, then priorities, then arrival. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from farm.core.lease import HOLD_RUN, Waiting


class Turn(NamedTuple):
    """A job's claim on its device."""

    #: Of its run: greater goes first.
    priority: int
    #: Grows with the order in which jobs came.
    arrived: int


T = TypeVar("T")


def in_turn(waiting: Iterable[tuple[Turn, T]]) -> list[T]:
    """Return what waits in the order in which it is served."""
    ordered = sorted(waiting, key=lambda item: (-item[0].priority, item[0].arrived))
    return [what for _, what in ordered]


def gives_way(waiting: Sequence[Waiting], run_id: str) -> Waiting | None:
    """Return whom a run that had the device last lets go first: a person, else who waits longest.

    So a person waits for one job at most, and two runs that don't share an agent take turns.

    Args:
        waiting: Those who asked for the device lately and didn't get it.
        run_id: The run that asks; its own earlier tries don't count.
    """
    return next(iter(served(one for one in waiting if one.run_id != run_id)), None)


def served(waiting: Iterable[Waiting]) -> list[Waiting]:
    """Return those who asked the device itself in the order in which it is given to them."""
    return sorted(waiting, key=lambda one: (one.run_id != HOLD_RUN, -one.waits_s))


def place_text(ahead: int, now: str) -> str:
    """Say where a job stands, for people: `next after ...`, `2 jobs before it, now ...`."""
    before = "next" if not ahead else f"{ahead} job{'s' * (ahead > 1)} before it"
    return f"{before}; now: {now}" if now else before
