"""Progress of a job for people: at most a few events a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from farm.core.events import JobProgress, Speeds
from farm.core.runtime import DeviceJob
from farm.protocols import Runner
from farm.site.parsers.text import clean_text

#: Least time between two events that count the same, seconds.
PROGRESS_S = 0.25


class Told(Protocol):
    """What the launches of a job tell with each event; fields of `JobProgress`."""

    @property
    def speeds(self) -> Speeds:
        """See `JobProgress.speeds`."""

    @property
    def budget(self) -> tuple[float, float] | None:
        """See `JobProgress.budget`."""


class Progress:
    """Progress of one attempt.

    Args:
        job: The attempt.
        report: Takes events.
    """

    def __init__(self, job: DeviceJob, report: Callable[[JobProgress], None]) -> None:
        self._job = job
        self._report = report
        self._last = 0.0
        self._unit = ""
        #: The stage that was reported last.
        self.stage = ""
        #: While launches are repeated.
        self.launches: Told | None = None
        #: See `JobProgress.heat`.
        self.heat: tuple[float, float | None] | None = None

    def say(
        self,
        stage: str,
        done: int = 0,
        total: int = 0,
        unit: str = "",
        *,
        detail: str = "",
        rate: tuple[str, float] | None = None,
        force: bool = False,
    ) -> None:
        """Say where the job stands; dropped when it counted the same thing a moment ago.

        The first word of a stage or a unit is never dropped: there may be no second one for long.
        """
        now = time.monotonic()
        same = (stage, unit) == (self.stage, self._unit)
        if same and not force and now - self._last < PROGRESS_S:
            return
        self.stage, self._unit, self._last = stage, unit, now
        job = self._job
        event = JobProgress(
            job.attempt_id, job.device, stage, done, total, unit, detail, rate, heat=self.heat
        )
        if (told := self.launches) is not None:
            event = replace(event, speeds=told.speeds, budget=told.budget)
        self._report(event)

    def line(self, runner: Runner, stage: str, line: bytes) -> None:
        """Pass on the rate or the progress that a line of a runner reports."""
        rate = runner.rate(line)
        if rate is not None:
            kind, value = rate
            self.say(stage, unit=self._unit, rate=(clean_text(kind)[:80], value), force=True)
            return
        found = runner.progress(line)
        if found is not None:
            phase, done, total = found
            self.say(stage, done, total, "tokens", detail=clean_text(phase)[:80])
