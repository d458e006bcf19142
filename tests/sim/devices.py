"""Devices and their sessions: what an agent's threads do on a device, in virtual time.

A device is a model of what `farm-helper` does there (tests/unit/native and tests/lab try the real
one): one lease at a time, a later epoch takes over, a program that nobody asks about is ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from farm.clock import utc_now
from farm.core.artifact import ObjectRef
from farm.core.device import Device, DeviceEntry, InQueue
from farm.core.errors import ConnectError, DeviceLost, FarmError, LeaseError, StorageFull
from farm.core.events import (
    DeviceChanged,
    DeviceRecovery,
    JobFinished,
    JobProgress,
    JobStarted,
    SiteEvent,
)
from farm.core.runtime import AttemptId, Deployed, DeviceJob, DeviceRunResult
from tests.sim.world import Process, Violation, World
from tests.unit.core import builders as b

#: As in farm.site.context.Limits.
STALE_S, LEASE_S = 45.0, 60.0
_BEAT_S = 4.0


@dataclass(frozen=True, slots=True)
class Truth:
    """A program that ran to its end on a device; its result carries the number of this."""

    run_id: str
    cell_id: str
    device: str
    #: Whether the device computed what eager PyTorch does.
    good: bool


@dataclass(slots=True)
class Program:
    """Something that runs on a device."""

    attempt: AttemptId
    cell_id: str
    ends_s: float
    #: When somebody asked about it last.
    asked_s: float


class SimDevice:
    """One device."""

    def __init__(self, world: World, name: str, site: str, truth: list[Truth]) -> None:
        self.name, self._world, self._truth = name, world, truth
        entry = replace(b.device(name).entry, site=site)
        self._ready = replace(b.device(name), entry=entry)
        self.on = True
        self.full_until = 0.0
        #: Run, epoch, and when it ends.
        self._lease: tuple[str, int, float] | None = None
        self.program: Program | None = None

    def look(self) -> Device:
        """As a probe finds it."""
        if self.on:
            return self._ready
        gone = self._ready.marked("offline", f"{self.name}: no answer")
        return replace(gone, facts=None)

    def power(self, *, on: bool) -> None:
        """Cut its power, or give it back. A restart ends leases and programs."""
        if not on:
            self._lease = self.program = None
        self.on = on
        self._world.note(f"{self.name} is {'on' if on else 'off'}")

    def take(self, run_id: str, epoch: int) -> None:
        """Lease it, or renew the lease.

        Raises:
            DeviceLost: It has no power.
            LeaseError: Somebody else has it.
        """
        self._answer()
        if self._lease is not None and self._lease[2] > self._world.now:
            holder, held_epoch, _ = self._lease
            if holder != run_id:
                raise LeaseError(f"{self.name} is leased by run {holder}", device=self.name)
            if held_epoch > epoch:
                raise LeaseError(f"{self.name}: stale epoch {epoch}", device=self.name)
        self._lease = (run_id, epoch, self._world.now + LEASE_S)

    def clean(self) -> None:
        """End what others left; of whoever has just leased it."""
        self.program = None

    def start(self, job: DeviceJob, seconds: float) -> None:
        """Start a program."""
        self.take(job.run_id, job.epoch)
        if self.full_until > self._world.now:
            raise StorageFull(f"{self.name}: no space left", device=self.name)
        self._end_stale()
        if self.program is not None:
            raise Violation(f"{self.name} runs {self.program.attempt} and is given {job.job_id}")
        now = self._world.now
        self.program = Program(job.attempt_id, job.cell_id, now + seconds, now)
        self._world.note(f"{self.name} runs {_words(job.attempt_id)}")

    def ask(self, attempt: AttemptId) -> DeviceRunResult | None:
        """Ask about a program: its result once it has one; keeps it and the lease alive.

        Raises:
            DeviceLost: It has no power, or the program was ended meanwhile.
            LeaseError: A later epoch, or another run, has the device.
        """
        self.take(attempt.run_id, attempt.epoch)
        self._end_stale()
        program = self.program
        if program is None or program.attempt != attempt:
            raise DeviceLost(f"{self.name}: the program is gone", device=self.name)
        program.asked_s = self._world.now
        if program.ends_s > self._world.now:
            return None
        self.program = None
        good = hash_of(attempt.run_id, program.cell_id) % 10 > 0
        self._truth.append(Truth(attempt.run_id, program.cell_id, self.name, good))
        deployed = Deployed(len(self._truth), 0, 0.1)
        return DeviceRunResult(b.BUILD, (), deployed)

    def leave(self, attempt: AttemptId) -> None:
        """Clean up after an attempt, where the device still answers and is still its."""
        if not self.on:
            return
        if self.program is not None and self.program.attempt == attempt:
            self.program = None
        if self._lease is not None and self._lease[:2] == (attempt.run_id, attempt.epoch):
            self._lease = None

    @property
    def busy(self) -> str:
        """What keeps it from others now; empty when nothing does."""
        self._end_stale()
        if self.program is not None:
            return f"{self.name} runs {_words(self.program.attempt)}"
        if self._lease is not None and self._lease[2] > self._world.now:
            return f"{self.name} is leased by run {self._lease[0]}"
        return ""

    def _end_stale(self) -> None:
        if self.program is not None and self._world.now - self.program.asked_s > STALE_S:
            self.program = None

    def _answer(self) -> None:
        if not self.on:
            raise DeviceLost(f"{self.name}: no answer", device=self.name)


class SimSession:
    """Stands in for farm.site.agent.session.DeviceSession: the same calls, and no thread."""

    def __init__(
        self,
        entry: DeviceEntry,
        device: SimDevice,
        process: Process,
        emit: Callable[[SiteEvent], None],
    ) -> None:
        self.entry = entry
        self._device, self._process, self._emit = device, process, emit
        self._queue: deque[DeviceJob] = deque()
        self._running: DeviceJob | None = None
        self._stopped: FarmError | None = None
        self._wake = asyncio.Event()
        self._at_work = False

    def submit(self, job: DeviceJob) -> None:
        self._queue.append(job)
        if not self._at_work:
            self._at_work = True
            self._process.start(self._work())

    def cancel(self, which: Callable[[DeviceJob], bool], error: FarmError) -> None:
        for job in [job for job in self._queue if which(job)]:
            self._queue.remove(job)
            self._finish(job, None, error)
        if self._running is not None and which(self._running):
            self._stopped = error
            self._wake.set()

    @property
    def busy(self) -> bool:
        return self._running is not None or bool(self._queue)

    @property
    def queue(self) -> tuple[InQueue, ...]:
        return ()

    def close(self) -> None:
        return None

    def join(self, timeout_s: float) -> bool:
        return not self.busy

    def abandon(self, error: FarmError) -> None:
        job, self._running = self._running, None
        if job is not None:
            self._finish(job, None, error)

    async def _work(self) -> None:
        while self._queue:
            job = self._running = self._queue.popleft()
            self._stopped = None
            self._wake.clear()
            self._emit(JobStarted(job.attempt_id, job.device, utc_now()))
            result: DeviceRunResult | None = None
            error: FarmError | None = None
            try:
                result = await self._run(job)
            except FarmError as failure:
                error = failure
            if self._running is job:
                self._running = None
                self._finish(job, result, error)
        self._at_work = False

    async def _run(self, job: DeviceJob) -> DeviceRunResult:
        chance, device = self._process.world.chance, self._device
        await self._pause(chance.uniform(0.2, 2.0))
        if not device.on:
            raise ConnectError(f"{device.name}: no answer", device=device.name)
        device.take(job.run_id, job.epoch)
        device.clean()
        try:
            await self._pause(chance.uniform(0.5, 3.0))
            device.start(job, chance.uniform(10.0, 60.0))
            while (result := device.ask(job.attempt_id)) is None:
                await self._pause(_BEAT_S)
                self._emit(JobProgress(job.attempt_id, job.device, "measure"))
            return result
        finally:
            if not self._process.dead:
                device.leave(job.attempt_id)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        assert self._stopped is not None, "woken by a cancellation only"
        raise self._stopped

    def _finish(
        self, job: DeviceJob, result: DeviceRunResult | None, error: FarmError | None
    ) -> None:
        logs: tuple[ObjectRef, ...] = ()
        self._emit(JobFinished(job.attempt_id, job.device, utc_now(), result, error, logs))


class SimRevisitor:
    """Stands in for farm.site.agent.revisit.Revisitor: looks for lost devices until they answer."""

    def __init__(
        self,
        devices: dict[str, SimDevice],
        process: Process,
        emit: Callable[[DeviceChanged | DeviceRecovery], None],
    ) -> None:
        self._devices, self._process, self._emit = devices, process, emit
        self._looking: set[str] = set()

    def lost(self, device: Device, reason: str) -> None:
        if device.name in self._looking:
            return
        self._looking.add(device.name)
        self._emit(DeviceChanged(device.marked("recovering", reason)))
        self._process.start(self._look(device.name))

    def recovered(self, devices: list[Device]) -> list[Device]:
        return devices

    def close(self) -> None:
        return None

    async def _look(self, name: str) -> None:
        await asyncio.sleep(2.0)
        while not self._devices[name].on:
            await asyncio.sleep(5.0)
        self._looking.discard(name)
        self._emit(DeviceChanged(self._devices[name].look()))


def hash_of(*words: str) -> int:
    """A number of some words that is the same in every process."""
    return int.from_bytes("\0".join(words).encode(), "big") % 1_000_003


def _words(attempt: AttemptId) -> str:
    return f"{attempt.job_id} of {attempt.run_id}, epoch {attempt.epoch}, {attempt.attempt}"
