"""The launches at the end of a job whose answers people read: they decide nothing."""

from __future__ import annotations

from collections.abc import Callable

from farm.core.errors import RunnerError
from farm.core.runtime import DeviceJob, LaunchRequest, LaunchResult


def ask(
    job: DeviceJob, launch: Callable[[LaunchRequest, str], LaunchResult]
) -> tuple[LaunchResult | str, ...]:
    """Make a launch for each prompt of a job.

    Args:
        job: What to do.
        launch: Runs one launch of the candidate, under a name.

    Returns:
        For each prompt its launch, or why there is none.

    Raises:
        DeviceError: The device failed; a runner's own failure is an answer that is missing.
    """
    found: list[LaunchResult | str] = []
    for number, wanted in enumerate(job.asked, start=1):
        if isinstance(wanted, str):
            found.append(wanted)
            continue
        try:
            found.append(launch(wanted, f"prompt-{number}"))
        except RunnerError as error:
            found.append(error.message)
    return tuple(found)
