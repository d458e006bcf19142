"""What a device measured, kept so that only comparing is left to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from farm.core.device import Device
from farm.core.events import JobFinished
from farm.core.result import AttemptReport, ErrorReport
from farm.core.runtime import DeviceJob, DeviceRunResult


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of one device job with all that judging needs of its moment."""

    cell_id: str
    attempt: int
    #: As it was known then; it may be gone when this is judged.
    device: Device
    started_at: str | None
    ended_at: str
    #: Hash of the program that ran: another export makes the result worthless.
    program_sha256: str
    result: DeviceRunResult

    @property
    def attempts(self) -> tuple[AttemptReport, ...]:
        """The attempt that gave it."""
        ran = AttemptReport(
            n=self.attempt,
            device=self.device.name,
            started_at=self.started_at,
            ended_at=self.ended_at,
            outcome="ran",
            error=None,
        )
        return (ran,)


def measured(
    job: DeviceJob, event: JobFinished, device: Device, started_at: str | None
) -> Measured:
    """Return what a job's end says was measured."""
    assert event.result is not None, "called with a result"
    return Measured(
        cell_id=job.cell_id,
        attempt=event.attempt,
        device=device,
        started_at=started_at,
        ended_at=event.at,
        program_sha256=job.artifact[0].object.sha256,
        result=event.result,
    )


#: Ends of attempts that nothing failed in: somebody else had the device, or the run was stopped.
_NO_ATTEMPT = ("LeaseError", "Interrupted")


def attempts_in(events: Iterable[Mapping[str, Any]]) -> dict[str, tuple[AttemptReport, ...]]:
    """Return the attempts of each cell that a journal tells of."""
    started: dict[tuple[str, int], str] = {}
    found: dict[str, tuple[AttemptReport, ...]] = {}
    for event in events:
        if event["kind"] == "JobStarted":
            started[event["job_id"], event["attempt"]] = event["at"]
        if event["kind"] != "JobFinished" or event["error_kind"] in _NO_ATTEMPT:
            continue
        job_id, kind = event["job_id"], event["error_kind"]
        report = AttemptReport(
            n=len(found.get(job_id, ())) + 1,
            device=event["device"],
            started_at=started.get((job_id, event["attempt"])),
            ended_at=event["at"],
            outcome="ran" if kind is None else "errored",
            error=None if kind is None else ErrorReport(kind, event["error"], {}),
        )
        found[job_id] = (*found.get(job_id, ()), report)
    return found
