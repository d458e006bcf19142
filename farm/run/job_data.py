"""What of a job goes elsewhere: the objects that its site needs, and its events as data."""

from __future__ import annotations

from farm import codec
from farm.core.artifact import ObjectRef
from farm.core.events import DeviceRecovery, JobFinished, JobStarted
from farm.core.runtime import DeviceJob


def needed_objects(job: DeviceJob) -> list[ObjectRef]:
    """Objects that a site can't make itself: artifacts, and the runner of a baseline."""
    other = job.baseline
    files = [
        *job.own_files,
        *job.runner.files,
        *(() if other is None else (*other.artifact, *other.runner.files)),
    ]
    return list(dict.fromkeys(file.object for file in files))


def journaled(event: JobStarted | JobFinished | DeviceRecovery) -> dict[str, object]:
    """Return what the journal keeps of an event."""
    if isinstance(event, DeviceRecovery):
        data: dict[str, object] = codec.to_data(event)
        return data
    if isinstance(event, JobStarted):
        return {**codec.to_data(event.attempt_id), "device": event.device, "at": event.at}
    return {
        **codec.to_data(event.attempt_id),
        "device": event.device,
        "at": event.at,
        "error": None if event.error is None else str(event.error),
        "error_kind": None if event.error is None else type(event.error).__name__,
        "logs": [codec.to_data(ref) for ref in event.logs],
    }
