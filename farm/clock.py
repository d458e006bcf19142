"""Time as a value that tests can replace, and deadlines."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, field


def utc_now() -> str:
    """Return the present as ISO 8601 in UTC with milliseconds: `2026-01-02T03:04:05.678Z`."""
    now = datetime.datetime.now(datetime.UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"


def seconds_since(at: str) -> float:
    """Return how long ago `utc_now` returned this."""
    return (
        datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(at)
    ).total_seconds()


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock. Passed down, so that nested waits share one limit."""

    seconds: float
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_end", time.monotonic() + self.seconds)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """True when no time is left."""
        return self.remaining_s <= 0
