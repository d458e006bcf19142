"""Virtual time for several processes: each has an event loop, and no thread or clock is real.

One callback runs at a time, whose process is drawn where several could go on; so a seed is a
history. A killed process runs nothing more. That everything waits for ever is a violation.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")


class Violation(AssertionError):
    """Something that must never be."""


class Killed(BaseException):
    """Unwinds what a process was doing when it was killed; nothing may stop it."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of one process; the world says when a callback runs."""

    def __init__(self, now: Callable[[], float], failed: Callable[[str], None]) -> None:
        super().__init__()
        self._now, self._failed = now, failed
        #: Set when it is wound up: its time runs on while that of the world stands.
        self._ahead_s = 0.0
        self._soon: deque[asyncio.Handle] = deque()
        self._later: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0

    def time(self) -> float:
        return self._now() + self._ahead_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._later, (when, self._count, handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed):
            self._failed(f"{context.get('message')}: {error!r}")

    def due(self) -> float | None:
        """When the next callback may run; None when nothing ever will by itself."""
        while self._soon and self._soon[0].cancelled():
            self._soon.popleft()
        while self._later and self._later[0][2].cancelled():
            heapq.heappop(self._later)
        if self._soon:
            return self.time()
        return self._later[0][0] if self._later else None

    def step(self) -> None:
        """Run one callback that is due."""
        while self._later and self._later[0][0] <= self.time():
            self._soon.append(heapq.heappop(self._later)[2])
        asyncio._set_running_loop(self)
        try:
            while self._soon:
                handle = self._soon.popleft()
                if not handle.cancelled():
                    handle._run()
                    return
        finally:
            asyncio._set_running_loop(None)

    def wind_up(self) -> None:
        """End all that is left, so that nothing of a dead process is ended by chance later."""
        for _ in range(100):
            left = asyncio.all_tasks(self)
            if not left:
                break
            for task in left:
                task.cancel()
            while self._soon:
                self.step()
            if self.due() is not None:  # some await a farewell that nobody takes
                self._ahead_s += max(0.0, self._later[0][0] - self.time())
                self.step()
        self._soon.clear()
        self._later.clear()
        self.close()


class Process:
    """A process of the simulation.

    Args:
        world: Where it lives.
        name: For the log.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.loop = VirtualLoop(lambda: world.now, self._failed)
        self.dead = self.frozen = False
        #: How often it was frozen.
        self.freezes = 0
        #: Called once, when it dies; and when nothing of it is under way any more.
        self.on_death: list[Callable[[], None]] = []
        self.on_burial: list[Callable[[], None]] = []
        world.processes.append(self)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin some work in it."""
        return self.loop.create_task(work)

    def kill(self) -> None:
        """End it here and now; nothing of its code has an effect any more."""
        self.end("is killed")

    def end(self, how: str = "ends") -> None:
        """Let it be over."""
        if not self.dead:
            self.dead = True
            self.world.note(f"{self.name} {how}")
            for call in self.on_death:
                call()

    def freeze(self, seconds: float) -> None:
        """Stop it for a while; it notices nothing."""
        if self.dead or self.frozen:
            return
        self.frozen = True
        self.freezes += 1
        self.world.note(f"{self.name} is frozen for {seconds:.1f} s")
        self.world.at(seconds, self._thaw)

    def check(self) -> None:
        """Stand before an effect on the outside: a dead process has none."""
        if self.dead:
            raise Killed(self.name)

    def wind_up(self) -> None:
        """End what is left of a dead one."""
        self.loop.wind_up()
        for call in self.on_burial:
            call()

    def _thaw(self) -> None:
        self.frozen = False

    def _failed(self, what: str) -> None:
        if not self.dead:
            raise Violation(f"{self.name}: {what}")


class World:
    """All processes, the clock and the chance of one history."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        #: Whose turn it is, and everything else: one never changes what the other draws.
        self._turns = Random(f"turns {seed}")
        self.chance = Random(f"chance {seed}")
        self.processes: list[Process] = []
        self.current: Process | None = None
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._digest = hashlib.sha256()
        #: What happened, for people.
        self.lines: list[str] = []

    @property
    def digest(self) -> str:
        """Hash of the history so far."""
        return self._digest.hexdigest()

    def note(self, what: str) -> None:
        """Add a line to the history."""
        line = f"{self.now:10.3f} {what}"
        self._digest.update(line.encode() + b"\n")
        self.lines.append(line)

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        """Let something happen from outside of all processes."""
        self._count += 1
        heapq.heappush(self._coming, (self.now + delay_s, self._count, act))

    def run(self, done: Callable[[], bool], limit_s: float) -> None:
        """Let time go by until something is so.

        Raises:
            Violation: It never will be, or not within the limit.
        """
        end = self.now + limit_s
        while not done():
            self._turn(end)

    def _turn(self, end: float) -> None:
        able: list[Process] = []
        soonest = self._coming[0][0] if self._coming else None
        for process in self.processes:
            due = None if process.frozen else process.loop.due()
            if due is None:
                continue
            if due <= self.now:
                able.append(process)
            elif soonest is None or due < soonest:
                soonest = due
        if self._coming and self._coming[0][0] <= self.now:
            heapq.heappop(self._coming)[2]()
        elif able:
            process = self.current = able[0] if len(able) == 1 else self._turns.choice(able)
            process.loop.step()
            self.current = None
        elif soonest is None:
            raise Violation("everything waits for ever")
        elif soonest > end:
            raise Violation(f"not ended after {end:.0f} s")
        else:
            self.now = soonest
        if any(process.dead for process in self.processes):
            self._bury()

    def _bury(self) -> None:
        gone = [process for process in self.processes if process.dead]
        self.processes = [process for process in self.processes if not process.dead]
        for process in gone:
            self.current = process
            process.wind_up()
        self.current = None

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            process.dead = True
        self._bury()
