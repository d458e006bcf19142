"""What a person is shown while a run goes on: small events, made by the controller.

The live view and the plain lines are functions of these alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.artifact import StageEvent
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.result import CellResult


@dataclass(frozen=True, slots=True)
class Preparing:
    """What goes on before there is a plan: `starting Ray`, `probing devices`."""

    step: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The plan is made."""

    run_id: str
    name: str
    #: (cell id, place) of every planned cell.
    cells: tuple[tuple[str, str], ...]
    folder: str


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A host task was given to the pool."""

    #: `export`, `reference`, `host_run`, `compare`.
    kind: str
    name: str
    #: Seconds it took last time on this host; None when unknown.
    estimate_s: float | None = None


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """A host task entered a stage or got further in one."""

    kind: str
    name: str
    stage: str
    index: int
    count: int
    elapsed_s: float
    detail: str = ""
    done_bytes: int | None = None
    total_bytes: int | None = None

    @classmethod
    def of(cls, kind: str, name: str, event: StageEvent, elapsed_s: float) -> TaskProgress:
        """Show a pool's event of the task that was started `elapsed_s` ago."""
        stage = (event.name, event.index, event.count)
        copied = (event.done_bytes, event.total_bytes)
        return cls(kind, name, *stage, elapsed_s, event.detail, *copied)


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """A host task ended."""

    kind: str
    name: str
    elapsed_s: float
    cache_hit: bool
    #: None when it worked.
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceNote:
    """Something about a device that people should know now."""

    device: str
    text: str


@dataclass(frozen=True, slots=True)
class CellDone:
    """A cell has its result."""

    result: CellResult


@dataclass(frozen=True, slots=True)
class SecondSittings:
    """Every cell has its first result; these are measured once more."""

    cell_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last line of a run."""

    line: str
    exit_code: int


ViewEvent = (
    Preparing
    | RunStarted
    | TaskStarted
    | TaskProgress
    | TaskFinished
    | JobStarted
    | JobProgress
    | JobFinished
    | DeviceNote
    | CellDone
    | SecondSittings
    | RunEnded
)
