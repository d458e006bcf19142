"""Whether the arms of a cell can work in turn, window by window, both loaded at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.runtime import Arm, DeviceJob, LaunchRequest, LaunchResult

#: Share of the free memory that both arms may need: what they share with others, and what a
#: kernel wants to keep free, is in it.
MEMORY_SHARE = 0.8
#: How the report names both ways.
IN_TURN = "windows in turn: both arms are loaded, and the other one is stopped"
BY_LAUNCH = "launch by launch"


def takes_turns(block: Sequence[LaunchRequest]) -> bool:
    """Whether a block of launches is one of two arms, A B B A, that windows can replace."""
    order = [request.arm for request in block]
    return order == ["candidate", "baseline", "baseline", "candidate"]


def obstacle(job: DeviceJob, done: Sequence[LaunchResult], free_bytes: int | None) -> str:
    """Say why the arms of a job can't work in turn; empty where they can.

    Args:
        job: The job, with both arms.
        done: Its launches so far: at least one of each arm shows what it can and needs.
        free_bytes: Memory of the device that is free now; None: it doesn't tell.
    """
    if job.policy is None or not takes_turns(job.policy.block):
        return "the runner does one prompt and one reply in a launch"
    need = 0
    for arm in ("candidate", "baseline"):
        shown = [launch for launch in done if launch.arm == arm]
        if not shown or not shown[-1].hello.turns:
            return f"the {arm}'s runner can't wait for its turn"
        peak = _peak(shown, arm)
        if peak is None:
            return f"how much memory the {arm} needs isn't known"
        need += peak
    if free_bytes is None:
        return "the device doesn't tell how much memory is free"
    if need > MEMORY_SHARE * free_bytes:
        return f"both arms need {need >> 20} MiB of memory, {free_bytes >> 20} MiB are free"
    return ""


def _peak(shown: Sequence[LaunchResult], arm: Arm) -> int | None:
    peaks = [x.peak_rss_bytes for x in shown if x.arm == arm and x.peak_rss_bytes is not None]
    return max(peaks, default=None)
