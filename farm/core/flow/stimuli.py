"""What happens to a run and what it does about it: events in, instructions out.

farm.core.flow.flow decides; the controller performs the instructions and feeds back what came of
them. Nothing here waits, reads a clock or does input or output.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.errors import FarmError
from farm.core.events import DeviceChanged, JobFinished, JobStarted
from farm.core.result import CellResult
from farm.core.runtime import AttemptId, DeviceJob
from farm.core.tasks import HostTask, HostTaskResult


@dataclass(frozen=True, slots=True)
class Started:
    """The run begins."""


@dataclass(frozen=True, slots=True)
class DeviceQuarantined:
    """A device gets no more work in this run."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A host task ended: with a result or an error, never both."""

    task_id: str
    result: HostTaskResult | None
    error: FarmError | None


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The pause before another attempt of a cell is over."""

    cell_id: str


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The user wants the run to end now."""


@dataclass(frozen=True, slots=True)
class CancelCell:
    """Somebody wants one cell to end now; the run goes on without it."""

    cell_id: str
    #: Who, for the reason of its result.
    by: str


@dataclass(frozen=True, slots=True)
class SecondLook:
    """Which cells are to be measured once more; the answer to `AskSecondLook`."""

    cell_ids: tuple[str, ...]


Stimulus = (
    Started
    | TaskEnded
    | RetryDue
    | Interrupt
    | CancelCell
    | SecondLook
    | JobStarted
    | JobFinished
    | DeviceChanged
    | DeviceQuarantined
)


@dataclass(frozen=True, slots=True)
class StartTask:
    """Give a task to the pool."""

    task: HostTask
    #: Hosts of the pool where it must not run: a device that is the host itself is measured.
    but: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """Give a job to the site of its device."""

    job: DeviceJob
    site: str


@dataclass(frozen=True, slots=True)
class CancelJob:
    """End the job of a cell that has its result; its device is busy until the job's end comes."""

    attempt_id: AttemptId
    site: str


@dataclass(frozen=True, slots=True)
class CancelAll:
    """End every running task and job."""


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Feed RetryDue after a pause."""

    cell_id: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class FinishCell:
    """A cell has its one result."""

    result: CellResult


@dataclass(frozen=True, slots=True)
class AskSecondLook:
    """Every cell has its first result: feed SecondLook with those that leave something open."""


Instruction = (
    StartTask | SubmitJob | CancelJob | CancelAll | RetryLater | FinishCell | AskSecondLook
)
