"""Puts farm's code into a world: virtual clocks, no threads, crash points at its files."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from farm.core.device import Device, DeviceEntry
from farm.core.errors import StoreError
from farm.core.events import SiteEvent
from farm.run.journal import Journal
from farm.site.agent.outbox_file import OutboxFile
from farm.site.context import SiteContext
from tests.sim.devices import SimRevisitor, SimSession
from tests.sim.hosts import SimHost
from tests.sim.network import Cuts
from tests.sim.world import Process, World

T = TypeVar("T")

_BEGIN = datetime.datetime(2026, 1, 1, 22, tzinfo=datetime.UTC)
#: Modules that look at the clock, by what they call it.
_CLOCKS = (
    "farm.clock.time",
    "farm.run.device_jobs.time",
    "farm.run.host_tasks.time",
    "farm.run.run.time",
    "farm.run.comparing.time",
)


class Interrupts:
    """Ctrl-C of a simulated process."""

    def __init__(self) -> None:
        self._takers: dict[Process, Callable[[], None]] = {}

    def press(self, process: Process) -> bool:
        """Interrupt it; false when it doesn't listen."""
        if process not in self._takers or process.dead:
            return False
        process.loop.call_soon(self._takers[process])
        return True

    @contextlib.contextmanager
    def listen(self, process: Process, interrupt: Callable[[], None]) -> Iterator[list[str]]:
        seen: list[str] = []

        def take() -> None:
            seen.append("SIGINT")
            interrupt()

        self._takers[process] = take
        try:
            yield seen
        finally:
            del self._takers[process]


@dataclass
class Stage:
    """What farm's code meets in place of a machine."""

    world: World
    #: By FARM_HOME.
    hosts: dict[Path, SimHost] = field(default_factory=dict)
    interrupts: Interrupts = field(default_factory=Interrupts)
    #: Until when the disk of a controller's run folder is full.
    full_until: dict[Process, float] = field(default_factory=dict)
    cuts: Cuts = field(init=False)

    def __post_init__(self) -> None:
        self.cuts = Cuts(self.world)


@contextlib.contextmanager
def staged(stage: Stage) -> Iterator[None]:
    """Let farm's modules live on a stage, while the block runs."""
    world, hosts, cuts, full_until = stage.world, stage.hosts, stage.cuts, stage.full_until

    def current() -> Process:
        assert world.current is not None, "farm's code runs in a process"
        return world.current

    class SimJournal(Journal):
        """The journal, with a process that can be killed at each of its writes."""

        def __init__(self, path: Path, **named: Any) -> None:
            self._process = current()
            super().__init__(path, **named)

        def _commit(self, statements: Sequence[Any]) -> None:
            cuts.stand(self._process, "journal", "before")
            if world.now < full_until.get(self._process, 0.0):
                raise StoreError(f"can't write the journal {self._path}: disk is full")
            super()._commit(statements)
            world.note(f"{self._process.name} writes {len(statements)}: {_words(statements)}")
            cuts.stand(self._process, "journal", "after")

    class SimOutboxFile(OutboxFile):
        """The file of an outbox, likewise."""

        def __init__(self, path: Path, run_id: str) -> None:
            found = next(host for host in hosts.values() if host.home in path.parents)
            assert found.process is not None
            self._process = found.process
            super().__init__(path, run_id)

        def _execute(self, sql: str, *values: object) -> None:
            cuts.stand(self._process, "outbox", "before")
            super()._execute(sql, *values)
            cuts.stand(self._process, "outbox", "after")

    async def at_once(work: Callable[[], T]) -> T:
        return work()

    def host_of(context: SiteContext) -> tuple[SimHost, Process]:
        host = hosts[context.home]
        assert host.process is not None
        return host, host.process

    def session(
        entry: DeviceEntry, context: SiteContext, emit: Callable[[SiteEvent], None]
    ) -> SimSession:
        host, process = host_of(context)
        return host.session(entry, process, emit)

    def revisitor(context: SiteContext, emit: Callable[[Any], None]) -> SimRevisitor:
        host, process = host_of(context)
        return host.revisitor(process, emit)

    def look(
        entries: Sequence[DeviceEntry],
        discover: object,
        context: SiteContext,
        limit_s: float,
        site: str = "",
    ) -> list[Device]:
        host, _ = host_of(context)
        return [host.devices[entry.name].look() for entry in entries]

    def listen(interrupt: Callable[[], None], _elsewhere: object = None) -> Any:
        return stage.interrupts.listen(current(), interrupt)

    clock = SimpleNamespace(monotonic=lambda: world.now, time=lambda: world.now)
    calendar = SimpleNamespace(
        UTC=datetime.UTC,
        datetime=SimpleNamespace(
            now=lambda tz: _BEGIN + datetime.timedelta(seconds=world.now),
            fromisoformat=datetime.datetime.fromisoformat,
        ),
    )
    boots = iter(range(1, 1_000_000))
    changes: dict[str, Any] = {
        **dict.fromkeys(_CLOCKS, clock),
        "farm.clock.datetime": calendar,
        "farm.run.opening.Journal": SimJournal,
        "farm.site.agent.outbox.OutboxFile": SimOutboxFile,
        "farm.site.agent.agent.in_thread": at_once,
        "farm.site.agent.agent.DeviceSession": session,
        "farm.site.agent.agent.Revisitor": revisitor,
        "farm.site.agent.agent.look": look,
        "farm.site.agent.attached.secrets": SimpleNamespace(
            token_hex=lambda _size: f"boot{next(boots)}"
        ),
        "farm.run.run.interrupts": listen,
        "farm.run.run_folder.new_run_id": lambda name, _now: name,
        # One format is enough to look at: rendering would be most of the time.
        "farm.run.ending.REPORT_FILES": {"json": "report.json"},
    }
    with contextlib.ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(mock.patch(name, value))
        yield


def _words(statements: Sequence[tuple[str, tuple[Any, ...]]]) -> str:
    """What is written, without what differs between two machines."""
    found = []
    for sql, values in statements:
        is_event = " events " in sql
        found.append(f"{values[1] if is_event else values[0]}")
    return ", ".join(found)
