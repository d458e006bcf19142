"""An agent with the toy runner, and what tests ask of it again and again."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from farm.core.device import Device, DeviceEntry
from farm.core.events import DeviceChanged, JobFinished, JobStarted, Numbered, SiteEvent
from farm.core.runner import DeployFile, RunnerSpec
from farm.core.runtime import DeviceJob, LaunchRequest
from farm.paths import store_root
from farm.site.agent.agent import SiteAgent
from farm.site.context import Limits
from farm.store.objects import ContentStore
from tests.command import share_native
from tests.contract.toy_runner import ToyRunner


def make_home(folder: Path) -> Path:
    """A FARM_HOME with nothing in it but builds."""
    home = folder / "home"
    share_native(home)
    (folder / "toy").mkdir()
    return home


@dataclass
class SiteBench:
    """One agent, one store, jobs by what their toy model does."""

    folder: Path
    orphan_grace_s: float = 60.0
    #: Devices of the inventory; this machine when there are none.
    entries: tuple[DeviceEntry, ...] = ()
    limits: Limits = field(default_factory=Limits)
    outboxes: Path | None = None
    home: Path = field(init=False)
    agent: SiteAgent = field(init=False)
    seq: int = 0
    #: Run of the latest jobs: whose events are polled.
    run_id: str = "run-1"
    #: Devices as `DeviceChanged` reported them between other events.
    changes: list[Device] = field(default_factory=list)

    #: The agent that was told of the devices.
    _told: SiteAgent | None = None

    def __post_init__(self) -> None:
        self.home = make_home(self.folder)
        self.agent = self.new_agent()
        self.store = ContentStore(store_root(self.home))

    def new_agent(self) -> SiteAgent:
        return SiteAgent(
            self.home,
            outboxes=self.outboxes,
            orphan_grace_s=self.orphan_grace_s,
            find_runner=lambda _name: ToyRunner(self.folder / "toy"),
            discover=lambda _named, _site: [],
            limits=self.limits,
        )

    @property
    def local(self) -> DeviceEntry:
        return DeviceEntry("here", "local", root=str(self.folder / "device"))

    @property
    def root(self) -> Path:
        return self.folder / "device"

    def job(
        self, model: str, *, name: str = "cell:a", device: str = "here", **changes: object
    ) -> DeviceJob:
        ref = self.store.put_bytes(model.encode(), "model.pte")
        values: dict[str, object] = {
            "job_id": name,
            "attempt": 1,
            "epoch": 1,
            "run_id": "run-1",
            "cell_id": name,
            "device": device,
            "runner": RunnerSpec("toy"),
            "artifact": (DeployFile(ref, "model.pte"),),
            "launches": (LaunchRequest(1, timeout_s=60.0),),
        }
        return DeviceJob(**(values | changes))  # type: ignore[arg-type]

    async def start(self, *jobs: DeviceJob) -> None:
        if self._told is not self.agent:
            self._told = self.agent
            devices = await self.agent.inventory(self.entries or [self.local], adb_auto=False)
            assert all(device.facts is not None for device in devices), devices
        self.run_id = jobs[0].run_id
        await self.agent.submit(jobs)

    async def polled(self, linger_s: float, after: int | None = None) -> tuple[Numbered, ...]:
        """One poll of the run of the latest jobs."""
        asked = self.seq if after is None else after
        return (await self.agent.poll(self.run_id, asked, linger_s)).events

    async def events(self, *, until: int = 1, limit_s: float = 60.0) -> list[SiteEvent]:
        """Events up to the `until`-th JobFinished, each acknowledged."""
        found: list[SiteEvent] = []
        end = time.monotonic() + limit_s
        while sum(isinstance(event, JobFinished) for event in found) < until:
            assert time.monotonic() < end, found
            for item in await self.polled(0.5):
                assert item.seq > self.seq  # progress that an agent took along leaves gaps
                self.seq = item.seq
                if isinstance(item.event, DeviceChanged):
                    self.changes.append(item.event.device)
                else:
                    found.append(item.event)
        return found

    async def run(self, job: DeviceJob, *, limit_s: float = 60.0) -> JobFinished:
        """Run one job to its end."""
        await self.start(job)
        events = await self.events(limit_s=limit_s)
        assert isinstance(events[0], JobStarted)
        last = events[-1]
        assert isinstance(last, JobFinished)
        return last

    async def until_stage(self, stage: str, limit_s: float = 30.0) -> None:
        """Wait for a job to get to a stage."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            for item in await self.polled(0.5):
                self.seq = item.seq
                if getattr(item.event, "stage", None) == stage:
                    return
        raise AssertionError(f"no job came to {stage}")

    async def changed(self, state: str, limit_s: float = 40.0) -> Device:
        """Wait until a device is reported in this state."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            for device in self.changes:
                if device.state == state:
                    return device
            for item in await self.polled(0.5):
                self.seq = item.seq
                if isinstance(item.event, DeviceChanged):
                    self.changes.append(item.event.device)
        raise AssertionError(f"no device became {state}: {self.changes}")

    def left_behind(self) -> list[str]:
        """Work folders and processes of jobs on the local device, and a lease in force."""
        found = [str(path) for path in (self.root / "work").glob("*")]
        lease = self.root / "lease"
        if lease.exists() and '"released":true' not in lease.read_text():
            found.append(f"lease {lease.read_text()}")
        return found + processes_under(self.root)


def sim_bench(folder: Path, *, lease_s: float = 60.0, **script: str) -> SiteBench:
    """A bench whose one device is simulated, with this script."""
    entry = DeviceEntry("sim", "sim", root=str(folder / "sim"), sim=tuple(script.items()))
    limits = Limits(stale_s=9.0, poll_s=1.0, reconnect_s=3.0, clean_s=3.0, lease_s=lease_s)
    return SiteBench(folder, entries=(entry,), limits=limits)


def processes_under(folder: Path) -> list[str]:
    """Processes that stand in a folder or run a program of it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            places = [os.readlink(entry / "cwd"), os.readlink(entry / "exe")]
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue  # it ended while we looked
        if any(place.startswith(str(folder)) for place in places) or f"{folder}/" in words:
            found.append(f"process {entry.name}: {words!r}")
    return found
