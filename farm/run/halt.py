"""Why a run ends before its flow does."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from farm.core.errors import StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Halt:
    """What becomes the flag and the reason of every cell that had not ended."""

    #: `defect`, `not_recorded`, `run_limit`, `not_ended`.
    flag: str
    reason: str


def halted_by(error: Exception) -> Halt:
    """Say why a run can't go on after an error, and log where it came from."""
    if isinstance(error, StoreError):
        log.error("the run ends: %s", error)
        return Halt("not_recorded", error.message)
    log.error("the run ends: farm itself failed", exc_info=error)
    return Halt("defect", f"farm itself failed: {type(error).__name__}: {error}")


def over_limit(run_s: float) -> Halt:
    """Say that a run took too long."""
    return Halt("run_limit", f"the run reached limits.run_s ({run_s:g} s)")
