"""Everything that may go wrong while versions change: no device is left without one that works."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import runners
from farm import paths, transports
from farm.core.artifact import Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import FarmError
from farm.core.lease import LeaseOwner
from farm.core.rules.rollout import Finished, RolloutPlan, Step
from farm.core.runner import OWN, DeployFile
from farm.deploy import begin, record, work
from farm.deploy.controller import Rollout
from farm.deploy.door import Door, Prepared
from farm.deploy.record import Record, SavedDeployment
from farm.deploy.release import Release
from farm.deploy.work import outcomes
from farm.site.context import Limits, SiteContext
from farm.site.device.connection import Connection
from farm.store.objects import ContentStore
from tests.command import CONFIGS, Farm
from tests.lab.machine import Machine
from tests.lab.test_run_lab import jobs_on, runners_on, until
from tests.lab.up import write_inventory
from tests.pace import slack

pytestmark = [pytest.mark.lab, pytest.mark.export]


@pytest.fixture
def farm(new_home: Path, tmp_path: Path) -> Farm:
    """What is deployed, and its history, is of one test."""
    return Farm(new_home, tmp_path)


Hooks = Mapping[tuple[str, Step, str], Callable[[], object]]
#: A machine that is started ends with the thread that started it: one that outlives all others.
ACTS = ThreadPoolExecutor(1)
#: A lost device is looked for only so long.
LIMITS = Limits(reconnect_s=4.0)


@dataclass
class Struck:
    """A door of a device, with something that happens before or after its steps."""

    door: Door
    device: str
    hooks: Hooks

    def _strike(self, when: str, step: Step) -> None:
        hook = self.hooks.get((when, step, self.device))
        if hook is not None:
            ACTS.submit(hook).result()

    def prepare(self) -> Prepared:
        self._strike("before", "prepare")
        made = self.door.prepare()
        self._strike("after", "prepare")
        return made

    def switch(self, previous: str) -> str:
        self._strike("before", "switch")
        boot_id = self.door.switch(previous)
        self._strike("after", "switch")
        return boot_id

    def check(self, boot_id: str) -> str:
        self._strike("before", "check")
        return self.door.check(boot_id)

    def restore(self, previous: str, was_served: bool | None) -> None:
        self._strike("before", "restore")
        self.door.restore(previous, was_served)

    def cancel(self, error: FarmError) -> None:
        self.door.cancel(error)


@dataclass
class Fleet:
    """Two devices with a first version of `kiosk`, and versions made of it."""

    home: Path
    first: SavedDeployment
    machines: dict[str, Machine]
    store: ContentStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = ContentStore(paths.store_root(self.home))

    def version(self, label: str, *devices: str, ends: tuple[int, ...] = ()) -> SavedDeployment:
        """Another version of the same model, with a file of its own, for some of the devices."""
        note = DeployFile(self.store.put_bytes(label.encode() * 100, "note.txt"), "note.txt")
        assigned = tuple(
            replace(
                one,
                manifest=replace(one.manifest, version=label, files=(*one.manifest.files, note)),
            )
            for one in self.first.assigned
            if one.entry.name in devices
        )
        targets = tuple(
            replace(t, version=label) for t in self.first.rollout.targets if t.device in devices
        )
        plan = RolloutPlan(targets, ends or (len(targets),))
        return replace(
            self.first, deployment_id=f"0-{label}-deployment", rollout=plan, assigned=assigned
        )

    def roll(self, saved: SavedDeployment, hooks: Hooks | None = None) -> Finished:
        """Carry it out, or go on with it; what its journal says of the devices is so."""
        finished, states = self.carried_out(saved, hooks or {})
        new = {target.device: target.version for target in saved.rollout.targets}
        for name, state in states.items():
            is_new = self.current(name) == new[name]
            assert state == "unknown" or is_new is (state == "new")
        return finished

    def carried_out(self, saved: SavedDeployment, hooks: Hooks) -> tuple[Finished, dict[str, str]]:
        folder = paths.deployments(self.home) / saved.deployment_id
        opened = Record(folder) if folder.exists() else record.create(self.home, saved)
        context = SiteContext(self.home, self.store, transports.open, runners.find, LIMITS)
        with opened:
            doors = {
                one.entry.name: Struck(
                    Door(
                        one.entry,
                        Release(one.manifest, one.runner),
                        saved.canary,
                        context,
                        f"deploy-{saved.deployment_id}",
                        opened.session,
                        saved.keep,
                        lambda _text: None,
                        served=saved.service,
                    ),
                    one.entry.name,
                    hooks,
                )
                for one in saved.assigned
            }
            finished = Rollout(opened, doors, lambda _device, _text: None).run()
            states = {one.device: one.in_use for one in outcomes(opened.saved, opened.events)}
        return finished, states

    def current(self, device: str) -> str:
        """What is in use by the device's disk; every file of it is there."""
        (link,) = self.machines[device].disk.glob("**/farm/deployments/kiosk/current")
        folder = link.parent / link.readlink()
        files = [path for path in folder.rglob("*") if path.is_symlink()]
        assert len(files) >= 5
        root = folder.parents[2]
        for path in files:
            assert (root / "objects" / path.readlink().name).is_file(), path
        return folder.name

    def object_file(self, device: str, label: str) -> Path:
        """The version's own file on the device's disk."""
        ref = self.store.put_bytes(label.encode() * 100, "note.txt")
        (path,) = self.machines[device].disk.glob(f"**/farm/objects/{ref.sha256}")
        return path


def flip(path: Path) -> None:
    """Change one byte, and nothing that a stamp sees."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_no_fault_leaves_a_device_without_a_working_version(
    farm: Farm,
    adb_device: Callable[..., Machine],
    ssh_device: Callable[..., Machine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phone, board = adb_device(), ssh_device()
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, [phone, board], local=False)
    quick = ("--cluster", "none", "--live", "off", "--quick", "-i", str(inventory))
    done = farm("run", str(CONFIGS / "tiny.yaml"), *quick, "--set", "gates={}")
    assert done.returncode == 0, done.stdout + done.stderr
    request = begin.DeployRequest(
        run="latest", to="", out=farm.cwd / "runs", inventory=inventory, name="kiosk"
    )
    planned = begin.plan(request, farm.home)
    assert not planned.left_out
    fleet = Fleet(farm.home, planned.saved, {phone.name: phone, board.name: board})
    first = {one.entry.name: one.manifest.version for one in planned.saved.assigned}
    assert fleet.roll(planned.saved).outcome == "deployed"
    # The same again: not a byte is pushed.
    again = replace(planned.saved, deployment_id="0-again-deployment")
    assert fleet.roll(again).outcome == "deployed"
    events = record.read_events(paths.deployments(farm.home) / again.deployment_id)
    assert {e.pushed_bytes for e in events} == {0}

    def all_old() -> bool:
        return {name: fleet.current(name) for name in first} == first

    # The power is cut between copy and switch, and comes back: the old one, until it goes on.
    def cut() -> None:
        phone.restart()
        assert all_old()

    saved = fleet.version("cut-before", phone.name)
    assert fleet.roll(saved, {("before", "switch", phone.name): cut}).outcome == "deployed"
    assert fleet.current(phone.name) == "cut-before"
    first[phone.name] = "cut-before"

    # It is cut there and stays away; the other device goes back, this one when it is here again.
    saved = fleet.version("away", phone.name, board.name)
    finished = fleet.roll(saved, {("before", "switch", phone.name): phone.kill})
    assert finished.outcome == "rollback_incomplete", finished
    assert {name for name, _ in finished.failures} == {phone.name}
    phone.start()
    assert all_old()
    assert fleet.roll(saved).outcome == "rolled_back"
    assert all_old()

    # It is cut right after the switch: the new one is in use, and the check sees the restart.
    saved = fleet.version("cut-after", board.name)
    finished = fleet.roll(saved, {("after", "switch", board.name): board.restart})
    assert (finished.outcome, finished.stage) == ("rolled_back", 1), finished
    assert "restarted" in finished.failures[0][1]
    assert all_old()

    # The disk is full: nothing is copied, and what is in use isn't evicted for it.
    phone.fill(1 << 20)
    finished = fleet.roll(fleet.version("full", phone.name))
    phone.unfill()
    assert finished.outcome == "rolled_back", finished
    assert "storage" in finished.failures[0][1]
    assert all_old()

    # A byte flips after the copy, and no stamp tells.
    def rot() -> None:
        flip(fleet.object_file(board.name, "rot"))

    finished = fleet.roll(fleet.version("rot", board.name), {("before", "switch", board.name): rot})
    assert finished.outcome == "rolled_back", finished
    assert "note.txt" in finished.failures[0][1]
    assert all_old()

    # The new runner has a kernel that is wrong by two percent: the smoke check stops it.
    finished = fleet.roll(wrong_kernel(fleet, board.name, monkeypatch))
    assert finished.outcome == "rolled_back", finished
    assert "canary: the runner's kernels compute wrongly" in finished.failures[0][1]
    assert all_old()

    # A device goes away in stage 2: stage 1 keeps the new one, it has the old one.
    saved = fleet.version("stage-2", phone.name, board.name, ends=(1, 2))
    finished = fleet.roll(saved, {("before", "prepare", board.name): board.kill})
    assert (finished.outcome, finished.stage) == ("rolled_back", 2), finished
    assert finished.failures[0][0] == board.name
    board.start()
    first[phone.name] = "stage-2"
    assert all_old()

    # Somebody's deployment has the device: the other one says whose, and changes nothing.
    entry = next(one.entry for one in planned.saved.assigned if one.entry.name == board.name)
    connection = Connection(entry, farm.home)
    other = LeaseOwner("ann@desk", "deploy-other", 1)
    connection.helper.take_lease(other)
    finished = fleet.roll(fleet.version("second", board.name))
    assert "leased by ann@desk for run deploy-other" in finished.failures[0][1]
    connection.helper.release_lease(other)
    connection.close()
    assert all_old()

    # Two at once, for real: one version is in use in the end, and whoever lost says so.
    ended: dict[str, Finished] = {}

    def race(label: str) -> None:
        ended[label], _ = fleet.carried_out(fleet.version(label, board.name), {})

    racers = [threading.Thread(target=race, args=(label,)) for label in ("race-a", "race-b")]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    winners = {label for label, one in ended.items() if one.outcome == "deployed"}
    assert fleet.current(board.name) in {*winners, first[board.name]}
    assert all(one.failures for label, one in ended.items() if label not in winners)
    assert [jobs_on(machine) for machine in (phone, board)] == [[], []]


def wrong_kernel(fleet: Fleet, device: str, monkeypatch: pytest.MonkeyPatch) -> SavedDeployment:
    """A version whose runner's attention is wrong by two percent."""
    saved = fleet.version("wrong", device)
    (one,) = saved.assigned
    entry_facts = facts_of(one.entry.name, fleet)
    with monkeypatch.context() as patch:
        patch.setenv("CXX", "g++ -DFARM_SCALE_ERROR=1.02")
        runner = runners.find(OWN)
        build = runner.build(entry_facts.abi, entry_facts, fleet.home, Sdk())
    places = runner.files(build)
    for file in build.files:
        fleet.store.put_file(places[file.object.sha256], file.object.name)
    own = {file.path for file in one.manifest.runner.files}
    kept = tuple(file for file in one.manifest.files if file.path not in own)
    manifest = replace(one.manifest, runner=build, files=(*kept, *build.files))
    return replace(saved, assigned=(replace(one, manifest=manifest),))


def facts_of(device: str, fleet: Fleet) -> DeviceFacts:
    entry = next(one.entry for one in fleet.first.assigned if one.entry.name == device)
    connection = Connection(entry, fleet.home)
    try:
        return connection.snapshot().facts
    finally:
        connection.close()


def test_a_controller_that_is_killed_in_the_middle_of_a_step_is_gone_on_with(
    farm: Farm, ssh_device: Callable[..., Machine]
) -> None:
    board, other = ssh_device(), ssh_device()
    write_inventory(farm.cwd / "lab.yaml", [board, other], local=False)
    quick = ("--cluster", "none", "--live", "off", "--quick", "-i", "lab.yaml")
    # One validates both: they are of one class.
    words = ("--set", "gates={}", "--select", f"name={board.name}")
    done = farm("run", str(CONFIGS / "tiny.yaml"), *quick, *words)
    assert done.returncode == 0, done.stdout + done.stderr

    def began(step: Step, session: int = 1) -> bool:
        events = [
            event
            for path in paths.deployments(farm.home).glob(f"*/{record.PLAN}")
            for event in record.read_events(path.parent)
        ]
        return any(event.step == step and event.session >= session for event in events)

    #: In this order, each in the process that goes on after the one before was killed.
    moments: dict[str, Callable[[], object]] = {
        "copy": lambda: list(other.disk.glob("**/farm/objects/*.part")),
        "smoke": lambda: runners_on(other),
        "switch": lambda: began("switch"),
        "check": lambda: began("check"),
    }
    asked: tuple[str, ...] = (
        "deploy", "latest", "--to", "transport=ssh", "-i", "lab.yaml", "--name", "kiosk",
    )  # fmt: skip
    other.network.limit(2 << 20)
    reached: list[str] = []
    for moment, is_now in moments.items():
        running = farm.start(*asked)
        while running.poll() is None and not is_now():
            # What a killed controller left there is ended before anything else is started.
            assert len(runners_on(board)) <= 1, reached
            assert len(runners_on(other)) <= 1, reached
            time.sleep(0.02)
        running.kill()
        if running.wait() == -signal.SIGKILL:
            reached.append(moment)
        for machine in (board, other):
            # Nothing yet, or a version that is all there.
            for link in machine.disk.glob("**/farm/deployments/kiosk/current"):
                assert (link / "manifest.json").is_file()
        asked = ("deploy", "--resume", "latest")
    assert reached == list(moments)
    # Whoever ends it by signals, and has no patience, gets a truthful exit code.
    running = farm.start(*asked)
    until(lambda: began("check", session=len(moments) + 1), 60 * slack())
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGHUP):
        running.send_signal(number)
    output, _ = running.communicate(timeout=60 * slack())
    assert running.returncode == 130, output
    assert "farm deploy --resume" in output
    assert [jobs_on(machine) for machine in (board, other)] == [[], []]
    done = farm(*asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2/2 have the new version" in done.stdout
    folder = record.find(farm.home, "latest")
    events = record.read_events(folder)
    assert max(event.session for event in events) == len(moments) + 2
    assert work.state_of(record.read_plan(folder), events) == "deployed"
    switched = [e.device for e in events if (e.step, e.kind) == ("switch", "ok")]
    assert set(switched) == {board.name, other.name}
