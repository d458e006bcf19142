"""How much a device computed: instructions, whatever its clock and heat. Part of report.json."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counted:
    """Instructions of one metric's windows, of all threads, in user space."""

    metric: str
    #: Median over launches, instructions per token.
    per_token: float
    #: Largest difference between launches, as a share.
    scatter: float
    #: The same of the baseline's arm; None where it didn't run beside it or wasn't counted.
    baseline_per_token: float | None = None
    baseline_scatter: float | None = None


@dataclass(frozen=True, slots=True)
class WorkReport:
    """Counted instructions of a cell, by metric."""

    metrics: tuple[Counted, ...] = ()
    #: Why there are none.
    reason: str = "nothing was timed"


#: Of a cell that was never judged.
NOT_COUNTED = WorkReport()
