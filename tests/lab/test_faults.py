"""Every row of `tests.lab.faults`, made for real on an adb device and an ssh device.

Some rows at a time run side by side, each on devices of its own, because most of a fault is
waiting. Beside each, a third device has a job that nothing may disturb.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from farm.core.artifact import ObjectRef
from farm.core.device import Device, ThermalLimits
from farm.core.events import DeviceChanged, JobFinished, JobProgress
from farm.core.rules.classes import device_class
from farm.core.runner import DeployFile
from farm.core.runtime import LaunchRequest, Measure
from farm.judge.environment import environment_guards
from farm.judge.guards import Guard, trust_of
from tests.contract.site_bench import SiteBench
from tests.contract.toy_runner import GOOD, PROGRAM
from tests.lab.board import make_board
from tests.lab.fault_acts import Scene
from tests.lab.faults import ELSEWHERE, FAULTS, TIMES, Fault, slug
from tests.lab.fixtures import destroy, unique
from tests.lab.machine import Machine
from tests.lab.phone import AdbServer, make_phone
from tests.lab.test_site_jobs import left_on

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
#: Rows at a time: each mostly waits.
SIDE_BY_SIDE = 4
#: A job of a second or so, beside devices in trouble, on a busy machine.
BYSTANDER_S = 15.0
#: A hot device is waited for this long.
THERMAL = ThermalLimits(battery_max_c=37.0, wait_max_s=6.0)
TIMED = (Measure("tg64", 0, 64, 0, 1, 0),)


class Bay:
    """The devices of one row at a time, kept for the next."""

    def __init__(self, bystanders: AdbServer) -> None:
        self._made: list[Machine] = []
        # The phone in trouble has a server of its own, so that a row may kill it.
        self.server = AdbServer()
        try:
            phone = self._keep(make_phone(self.server, unique("phone"), disk_mb=192, sensors=True))
            board = self._keep(make_board(unique("board"), disk_mb=192, sensors=True))
            # By its facts it is a virtual machine, whose heat is nobody's business.
            board.entry = replace(board.entry, labels=(("class", "board"),))
            self.machines = [phone, board]
            for machine in self.machines:
                machine.entry = replace(machine.entry, thermal=THERMAL)
            self.bystander = self._keep(make_phone(bystanders, unique("other"), disk_mb=128))
        except BaseException:
            self.destroy()
            raise

    def _keep(self, machine: Machine) -> Machine:
        self._made.append(machine)
        return machine

    def destroy(self) -> None:
        """Take everything down."""
        destroy(self._made)
        self.server.kill()


@dataclass
class Played:
    """What came of a row, by name of the device."""

    fault: Fault
    bench: SiteBench
    scenes: dict[str, Scene]
    devices: dict[str, Device]
    struck: dict[str, float] = field(default_factory=dict)
    noticed: dict[str, float] = field(default_factory=dict)
    finished: dict[str, JobFinished] = field(default_factory=dict)

    def take(self, event: object) -> None:
        """Read one event; strike when it is time."""
        if isinstance(event, DeviceChanged) or not isinstance(event, JobProgress | JobFinished):
            return
        name, now = event.device, time.monotonic()
        scene = self.scenes.get(name)
        if isinstance(event, JobProgress):
            if scene is not None and name not in self.struck and self._due(event):
                self.struck[name] = now
                self.fault.strike(scene)
            if (self.fault.shows or "connection lost") not in event.detail:
                return
        else:
            self.finished[name] = event
        if name in self.struck:
            self.noticed.setdefault(name, now - self.struck[name])

    def _due(self, event: JobProgress) -> bool:
        if self.fault.when == "push":
            return event.unit == "bytes" and event.done >= 8 << 20
        said = event.unit == "tokens" or "progress" not in self.fault.model
        return self.fault.when == "run" and event.stage in ("check", "measure") and said

    def guards(self, name: str) -> list[Guard]:
        """What the surroundings of a timed job say about its speed."""
        device, result = self.devices[name], self.finished[name].result
        assert device.facts is not None
        assert result is not None
        kind = device_class(device.facts, device.entry.labels)
        return environment_guards(device.facts, device.entry, kind, result)


async def play(fault: Fault, bay: Bay, folder: Path) -> Played:
    """Make one fault on both devices at once, and check what has to be true of it."""
    entries = (*(machine.entry for machine in bay.machines), bay.bystander.entry)
    bench = SiteBench(folder, entries=entries, limits=fault.limits)
    loop = asyncio.get_running_loop()
    scenes = {
        machine.name: Scene(machine, bench, bay.server, loop.call_later)
        for machine in bay.machines
        if fault.only in (None, machine.entry.transport)
    }
    devices = await bench.agent.inventory(entries, adb_auto=False)
    row = Played(fault, bench, scenes, {device.name: device for device in devices})
    assert [device.state for device in devices] == ["ready"] * 3, devices
    for scene in scenes.values():
        scene.machine.network.limit(fault.rate)
    if fault.when == "before":
        row.struck = dict.fromkeys(scenes, time.monotonic())
        for scene in scenes.values():
            fault.strike(scene)
    await bench.agent.submit(
        [
            bench.job(
                fault.model,
                name=scene.job_id,
                device=name,
                launches=(
                    LaunchRequest(
                        1, timeout_s=fault.timeout_s, measures=TIMED if fault.flags else ()
                    ),
                ),
                artifact=(DeployFile(_model(bench, fault), "model.pte"), *fault.files(scene)),
            )
            for name, scene in scenes.items()
        ]
    )
    await _follow(row, bay.bystander.name)
    for scene in scenes.values():
        fault.mend(scene)
        scene.machine.network.limit(None)
    await _as_good_as_new(row)
    await bench.agent.close()
    alive = {thread.name for thread in threading.enumerate()}
    assert not alive & {f"farm-{name}" for name in scenes}
    return row


def _model(bench: SiteBench, fault: Fault) -> ObjectRef:
    # Content of its own: what an earlier row pushed would not be pushed again.
    return bench.store.put_bytes(f"# {fault.name}\n{fault.model}".encode(), "model.pte")


async def _follow(row: Played, bystander: str) -> None:
    """Take events until all jobs ended; the bystander's begins with the first fault."""
    begun: float | None = None
    end = time.monotonic() + 90
    while len(row.finished) < len(row.scenes) + 1:
        assert time.monotonic() < end, (row.struck, row.finished)
        if begun is None and row.struck:
            begun = time.monotonic()
            await row.bench.agent.submit([row.bench.job(GOOD, name="cell:other", device=bystander)])
        for item in await row.bench.polled(0.2):
            row.bench.seq = item.seq
            row.take(item.event)
        if begun is not None and bystander not in row.finished:
            assert time.monotonic() - begun < BYSTANDER_S, "the other device was disturbed"
    assert row.finished[bystander].error is None, row.finished[bystander].error


async def _as_good_as_new(row: Played) -> None:
    """Programs end by themselves; the next job of each device passes and clears the rest."""
    end = time.monotonic() + row.fault.limits.stale_s + 5
    for name, scene in row.scenes.items():
        while any(not line.startswith("/") or " " in line for line in left_on(scene.machine)):
            assert time.monotonic() < end, left_on(scene.machine)
            await asyncio.sleep(0.2)
        job = row.bench.job(GOOD, name=f"{scene.job_id}:next", device=name, attempt=2)
        again = await row.bench.run(job)
        assert again.error is None, again.error
        assert again.result is not None
        if not row.fault.errors:
            assert again.result.deployed.skipped_bytes >= len(PROGRAM), "it was pushed already"
        assert left_on(scene.machine) == []
        (lease,) = scene.machine.disk.glob("**/farm/lease")
        assert json.loads(lease.read_text())["released"] is True


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Fault], Played]]:
    """Start every row that was selected, some at a time; return what came of one."""
    request.getfixturevalue("lab")
    bystanders: AdbServer = request.getfixturevalue("adb_server")
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = {item.name for item in items}
    rows = [fault for fault in FAULTS if f"test_fault[{slug(fault.name)}]" in chosen]
    bays: dict[int, Bay] = {}
    base = tmp_path_factory.mktemp("faults")

    def run(fault: Fault) -> Played:
        me = threading.get_ident()
        folder = base / slug(fault.name)
        folder.mkdir()
        if me not in bays:
            bays[me] = Bay(bystanders)
        try:
            return asyncio.run(play(fault, bays[me], folder))
        except BaseException:
            # Whatever state they are in: the next row gets new ones.
            bays.pop(me).destroy()
            raise

    # The threads outlive the devices that they started: those die with them.
    pool = ThreadPoolExecutor(SIDE_BY_SIDE)
    futures: dict[str, Future[Played]] = {row.name: pool.submit(run, row) for row in rows}
    yield lambda fault: futures[fault.name].result(timeout=500)
    for future in futures.values():
        future.cancel()
    pool.shutdown(wait=False)
    for bay in bays.values():
        bay.destroy()
    pool.shutdown(wait=True)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: slug(fault.name))
def test_fault(fault: Fault, played: Callable[[Fault], Played]) -> None:
    row = played(fault)
    assert set(row.struck) == set(row.scenes)
    for name in row.scenes:
        if fault.noticed_s is not None:
            assert row.noticed[name] <= fault.noticed_s
        error = row.finished[name].error
        if not fault.errors:
            assert error is None, error
            require_invalid_speed(row, name)
            continue
        assert isinstance(error, fault.errors), repr(error)
        text = error.message + str(error.context)
        assert re.search(fault.says, text), text
        assert "\x1b" not in text
    TIMES.mkdir(parents=True, exist_ok=True)
    times = {
        scene.machine.entry.transport: row.noticed[name] if fault.errors or fault.shows else None
        for name, scene in row.scenes.items()
    }
    (TIMES / f"{slug(fault.name)}.json").write_text(json.dumps(times))


def require_invalid_speed(row: Played, name: str) -> None:
    """The guards of the row fired; what correctness is judged by came back all the same."""
    if not row.fault.flags:
        return
    guards = row.guards(name)
    flagged = {guard.name: guard.detail for guard in guards if guard.state == "flagged"}
    for guard, detail in row.fault.flags:
        assert re.search(detail, flagged.get(guard, "")), guards
    assert trust_of(guards) == "invalid"
    result = row.finished[name].result
    assert result is not None
    assert [launch.logits[0][0] for launch in result.launches] == ["decode"]


def test_every_row_has_its_proof_and_stands_in_the_document() -> None:
    names = [fault.name for fault in FAULTS] + [name for name, _, _ in ELSEWHERE]
    assert len(names) == len(set(names)) >= 20
    told = (Path(__file__).parent / "FAULTS.md").read_text()
    assert re.findall(r"^\| (?!fault |-)(.*?) \|", told, re.MULTILINE) == names
    tests = [test for _, _, test in ELSEWHERE]
    for fault in FAULTS:
        assert (fault.only is None) == (fault.elsewhere == ""), fault.name
        tests += [fault.elsewhere] if fault.elsewhere else []
    for test in tests:
        path, _, name = test.partition("::")
        functions = ast.parse((ROOT / path).read_text()).body
        assert name in {f.name for f in functions if isinstance(f, ast.FunctionDef)}, test
