"""The index of past runs, as a run uses it: never a reason to fail."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

from farm import paths
from farm.core.errors import StoreError
from farm.core.result import CellResult, Report
from farm.judge.unchanged import Past
from farm.run.trend import with_trend
from farm.state.history import History

log = logging.getLogger(__name__)

#: Nights that changes of level are looked for in.
NIGHTS = 60


class PastRuns:
    """The index of past runs, where it can be used; a run does without it."""

    def __init__(self, home: Path, alarms: list[str]) -> None:
        self._path, self._alarms = paths.history_db(home), alarms

    def durations_s(self) -> dict[str, float]:
        """Return the estimates, or none and an alarm."""
        try:
            with contextlib.closing(History(self._path)) as history:
                return history.durations_s()
        except StoreError as error:
            log.warning("%s", error)
            self._alarms.append(error.message)
            return {}

    def same_bytes(self, results: Mapping[str, CellResult]) -> Mapping[str, Past]:
        """Return what the same bytes gave in earlier nights, by cell id; none and an alarm."""
        try:
            with contextlib.closing(History(self._path)) as history:
                return history.same_bytes(results)
        except StoreError as error:
            log.warning("%s", error)
            self._alarms.append(error.message)
            return {}

    def with_trend(self, report: Report) -> Report:
        """Say of each cell since when it fails and where its metrics moved; or an alarm."""
        try:
            with contextlib.closing(History(self._path)) as history:
                nights = history.nights(name=report.name, limit=NIGHTS)
        except StoreError as error:
            log.warning("%s", error)
            return report  # the alarm of `same_bytes` is in it already
        return with_trend(report, nights)

    def add(self, report: Report, folder: Path, durations_s: Mapping[str, float]) -> str:
        """Index a run; returns the alarm if that failed after it worked at the start."""
        try:
            with contextlib.closing(History(self._path)) as history:
                history.add(report, folder, durations_s)
        except StoreError as error:
            log.warning("%s", error)
            return "" if error.message in report.alarms else error.message
        return ""
