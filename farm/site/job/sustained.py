"""The last launch of a job that decodes without a pause, for as long as a device needs to settle.

Its telemetry is its own: a cap that it meets is what it shall find, and spoils no other number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from farm.core.rules.stopping import rates_by_launch
from farm.core.rules.sustained import repetitions
from farm.core.runtime import DeviceJob, LaunchRequest, LaunchResult, SustainedRun
from farm.core.telemetry import LaunchTelemetry, Start


def sustain(
    job: DeviceJob,
    before: Sequence[LaunchResult],
    launch: Callable[[LaunchRequest], LaunchResult],
    telemetry: list[LaunchTelemetry],
    starts: list[Start],
) -> SustainedRun | None:
    """Make the launch that a job asks for, if it does.

    Args:
        job: What to do.
        before: Launches so far: their rate says how much work takes how long.
        launch: Runs one launch of the candidate and appends to the next two.
        telemetry: Of the launches; this one's is taken out again.
        starts: Likewise.

    Raises:
        FarmError: The launch failed, or the device did.
    """
    wanted = job.sustained
    if wanted is None:
        return None
    (measure,) = wanted.request.measures
    rates = rates_by_launch(before, measure.name, "candidate")
    found = [rate for values in rates.values() for rate in values]
    if not found:
        return SustainedRun(None, None, f"no launch before gave a rate of {measure.name}")
    count = repetitions(measure.decode, max(found), wanted.seconds)
    again = replace(measure, repetitions=count, window_ms=0)
    done = launch(replace(wanted.request, measures=(again,)))
    starts.pop()
    # Times of single tokens say nothing more here, and are many.
    short = tuple(replace(sample, token_s=()) for sample in done.samples)
    return SustainedRun(replace(done, samples=short), telemetry.pop())
