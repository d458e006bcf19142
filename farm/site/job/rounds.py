"""The launches of one job in order: once each, then round by round until they are enough.

Brings each launch into its regime (cold or warm) and records which one it had. Two arms work in
turn where farm.core.rules.window_turns finds nothing against it. farm.core.rules.stopping decides
when there are enough launches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from farm.core.errors import DeviceError, RunnerError, TransportError
from farm.core.events import Speeds
from farm.core.rules.launches import without_baseline
from farm.core.rules.stopping import decide, speeds
from farm.core.rules.window_turns import BY_LAUNCH, IN_TURN, obstacle
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
    #: How both arms were measured, and why; empty of one arm.
    turns: str = ""


@dataclass(frozen=True, slots=True)
class Ways:
    """What rounds ask of a device."""

    #: Runs one launch, given its number.
    one: Callable[[int, LaunchRequest], LaunchResult]
    #: Runs one launch of both arms in turn; the first one leads.
    in_turn: Callable[[int, LaunchRequest, LaunchRequest], tuple[LaunchResult, LaunchResult]]
    #: Puts the candidate's files out of the page cache; returns the share that stayed.
    evict: Callable[[], float]
    #: Memory that is free, bytes; None where the device doesn't tell.
    free_bytes: Callable[[], int | None]


class Rounds:
    """One job's launches.

    Args:
        job: What to launch.
        ways: How launches are made.
        fresh: Whether this job brought the candidate's files to the device.
        clock: Seconds that the job has worked; waits for a device to cool down don't count.
    """

    def __init__(
        self,
        job: DeviceJob,
        ways: Ways,
        *,
        fresh: bool,
        clock: Callable[[], float],
    ) -> None:
        self._job, self._ways, self._fresh = job, ways, fresh
        self._clock = clock
        self._done: list[LaunchResult] = []
        self._count = 0
        self._started: set[Arm] = set()
        self._unpaired = ""
        #: Why arms don't work in turn; empty: they do.
        self._obstacle = ""
        #: What people are told besides the stage; made between launches, never in a timed window.
        self.speeds: Speeds = ()
        self._spent_s = 0.0
        #: When the portion at work began; None between portions.
        self._since: float | None = None

    @property
    def budget(self) -> tuple[float, float] | None:
        """Seconds of the budget that are spent, and all of them; None: no budget ends this job."""
        policy = self._job.policy
        if policy is None or not policy.asks or policy.least == policy.most:
            return None
        running = 0.0 if self._since is None else self._clock() - self._since
        return self._spent_s + running, policy.budget_s

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
        paired = self._job.policy is not None and self._job.baseline is not None
        if paired:
            self._obstacle = obstacle(self._job, self._done, self._ways.free_bytes())
        stop = self._repeat()
        turns = f"{BY_LAUNCH}: {self._obstacle}" if self._obstacle else IN_TURN
        paired = paired and not self._unpaired
        return Launched(tuple(self._done), stop, self._unpaired, turns if paired else "")

    def _repeat(self) -> Stop | None:
        counted: list[LaunchResult] = []
        while (policy := self._job.policy) is not None:
            self.speeds = speeds(policy, counted)
            stop = decide(policy, counted, self._spent_s)
            if stop is not None:
                return stop
            for requests in self._portions(policy.block):
                self._since = started = self._clock()
                results = self._portion(requests)
                self._spent_s += self._clock() - started
                self._since = None
                if not results:
                    # An arm was given up, or the turns were: what is left of before counts.
                    counted = [one for one in counted if one in self._done]
                    break
                counted += results
        return None

    def _portions(self, block: tuple[LaunchRequest, ...]) -> list[tuple[LaunchRequest, ...]]:
        """The launches of a block: each alone, or neighbouring arms together, in turn."""
        if self._job.baseline is None or self._unpaired or self._obstacle:
            return [(request,) for request in block]
        return [block[n : n + 2] for n in range(0, len(block), 2)]

    def _portion(self, requests: Sequence[LaunchRequest]) -> list[LaunchResult]:
        """Make the launches of a portion; none when something was given up."""
        if len(requests) == 2:
            return self._in_turn(requests[0], requests[1])
        result = self._one(requests[0])
        return [] if result is None else [result]

    def _in_turn(self, first: LaunchRequest, second: LaunchRequest) -> list[LaunchResult]:
        self._count += 1
        try:
            results = self._ways.in_turn(self._count - 1, first, second)
        except RunnerError as error:
            # Launch by launch it shows which arm fails, and whether it fails alone.
            log.warning("turns are given up: %s", error)
            self._obstacle = f"turns were given up: {error.message}"
            self._done = [launch for launch in self._done if not launch.in_turn]
            return []
        kept = [_of_its_arm(result, "warm") for result in results]
        self._done += kept
        return kept

    def _one(self, request: LaunchRequest) -> LaunchResult | None:
        """Launch; None when the baseline arm failed and was given up."""
        regime = self._regime(request)
        self._count += 1
        try:
            result = self._ways.one(self._count - 1, request)
        except RunnerError as error:
            if request.arm == "candidate":
                raise
            log.warning("the baseline's arm is given up: %s", error)
            self._unpaired = f"the baseline's artifact failed on the device: {error.message}"
            self._job = without_baseline(self._job)
            self._done = [launch for launch in self._done if launch.arm == "candidate"]
            return None
        self._started.add(request.arm)
        result = _of_its_arm(replace(result, arm=request.arm), regime)
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
            return self._ways.evict() <= EVICTED
        except TransportError:
            raise
        except DeviceError as error:
            log.warning("the page cache can't be emptied of the program: %s", error)
            return False


def _of_its_arm(result: LaunchResult, regime: Regime | None) -> LaunchResult:
    samples = tuple(replace(sample, arm=result.arm) for sample in result.samples)
    return replace(result, samples=samples, regime=regime)
