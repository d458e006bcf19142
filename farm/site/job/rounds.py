"""The launches of one job in order: once each, then round by round until they are enough.

Brings each launch into its regime (cold or warm) and records which one it had.
farm.core.rules.stopping decides when there are enough launches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from farm.core.errors import DeviceError, RunnerError, TransportError
from farm.core.rules.launches import without_baseline
from farm.core.rules.stopping import decide
from farm.core.runtime import Arm, DeviceJob, LaunchRequest, LaunchResult, Regime, Stop

log = logging.getLogger(__name__)

#: Share of its files that may stay in the page cache of a launch that counts as cold.
EVICTED = 0.02


@dataclass(frozen=True, slots=True)
class Launched:
    """What came of a job's launches."""

    launches: tuple[LaunchResult, ...]
    stop: Stop | None
    #: Why the baseline arm was given up; empty when it wasn't.
    unpaired: str = ""


class Rounds:
    """One job's launches.

    Args:
        job: What to launch.
        launch: Runs one launch, given its number.
        evict: Puts the candidate's files out of the page cache; returns the share that stayed.
        fresh: Whether this job brought the candidate's files to the device.
        clock: Seconds that the job has worked; waits for a device to cool down don't count.
    """

    def __init__(
        self,
        job: DeviceJob,
        launch: Callable[[int, LaunchRequest], LaunchResult],
        evict: Callable[[], float],
        *,
        fresh: bool,
        clock: Callable[[], float],
    ) -> None:
        self._job, self._launch, self._evict, self._fresh = job, launch, evict, fresh
        self._clock = clock
        self._done: list[LaunchResult] = []
        self._count = 0
        self._started: set[Arm] = set()
        self._unpaired = ""

    def run(self) -> Launched:
        """Run all of them.

        Raises:
            FarmError: A launch of the candidate failed, or the device did.
        """
        requests = self._job.launches
        if self._fresh and requests and requests[0].cold:
            # The first start after a push is neither cold nor warm; a cold one comes after it.
            self._one(replace(requests[0], cold=False))
        for request in requests:
            if request.arm == "candidate" or self._job.baseline is not None:
                self._one(request)
        stop = self._repeat()
        return Launched(tuple(self._done), stop, self._unpaired)

    def _repeat(self) -> Stop | None:
        counted: list[LaunchResult] = []
        spent_s = 0.0
        while (policy := self._job.policy) is not None:
            stop = decide(policy, counted, spent_s)
            if stop is not None:
                return stop
            for request in policy.block:
                started = self._clock()
                result = self._one(request)
                spent_s += self._clock() - started
                if result is None:
                    counted = [one for one in counted if one.arm == "candidate"]
                    break
                counted.append(result)
        return None

    def _one(self, request: LaunchRequest) -> LaunchResult | None:
        """Launch; None when the baseline arm failed and was given up."""
        regime = self._regime(request)
        self._count += 1
        try:
            result = self._launch(self._count - 1, request)
        except RunnerError as error:
            if request.arm == "candidate":
                raise
            log.warning("the baseline's arm is given up: %s", error)
            self._unpaired = f"the baseline's artifact failed on the device: {error.message}"
            self._job = without_baseline(self._job)
            self._done = [launch for launch in self._done if launch.arm == "candidate"]
            return None
        self._started.add(request.arm)
        samples = tuple(replace(sample, arm=request.arm) for sample in result.samples)
        result = replace(result, samples=samples, regime=regime, arm=request.arm)
        self._done.append(result)
        return result

    def _regime(self, request: LaunchRequest) -> Regime | None:
        if request.cold:
            return "cold" if self._is_evicted() else None
        if request.arm in self._started:
            return "warm"
        return "first_ever" if self._fresh and request.arm == "candidate" else None

    def _is_evicted(self) -> bool:
        try:
            return self._evict() <= EVICTED
        except TransportError:
            raise
        except DeviceError as error:
            log.warning("the page cache can't be emptied of the program: %s", error)
            return False
