"""What can be done to a device in the middle of a job, as functions of the scene."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

from farm.core.command import Command
from farm.core.errors import Interrupted
from farm.core.runner import DeployFile
from farm.transports import open as open_transport
from tests.contract.site_bench import SiteBench
from tests.lab import board
from tests.lab.host import sh
from tests.lab.machine import Machine
from tests.lab.made_sys import CAPPED_KHZ, CEILING, FULL_KHZ, ZONE
from tests.lab.phone import AdbServer

_YEAR_S = 366 * 86400
#: Of a zone, and of a phone's battery in tenths: as made, and too warm to measure.
_ZONE_MC, _HOT_ZONE_MC = 41_000, 90_000
_BATTERY_DC, _HOT_BATTERY_DC = 312, 402


@dataclass(frozen=True)
class Scene:
    """One job on one device, in the middle of which something happens."""

    machine: Machine
    bench: SiteBench
    server: AdbServer
    #: Calls something after so many seconds, in the thread that drives the bench.
    later: Callable[[float, Callable[[], object]], object]

    @property
    def job_id(self) -> str:
        return f"cell:{self.machine.entry.transport}"


Act = Callable[[Scene], object]


def missing_library(scene: Scene) -> tuple[DeployFile, ...]:
    """A program that needs a library which only this machine has."""
    folder = scene.bench.folder / "program"
    folder.mkdir(exist_ok=True)
    for name, text, options in (
        ("libabsent.so", "int absent(void) { return 0; }", ("-shared", "-fPIC")),
        ("program", "int absent(void); int main(void) { return absent(); }", ("-labsent",)),
    ):
        if not (folder / name).exists():
            words = ("-x", "c", "-", "-o", folder / name, "-L", folder, *options)
            sh("gcc", *words, stdin=text)
    ref = scene.bench.store.put_file(folder / "program", "program")
    return (DeployFile(ref, "program", executable=True),)


def half_full(scene: Scene) -> None:
    scene.machine.fill(leave_bytes=2 << 20)


def unplug_for(seconds: float) -> Act:
    def act(scene: Scene) -> None:
        scene.machine.network.unplug()
        scene.later(seconds, scene.machine.network.heal)

    return act


def restart_after(seconds: float) -> Act:
    def act(scene: Scene) -> None:
        scene.machine.kill()
        scene.later(seconds, scene.machine.start)

    return act


def kill_server(scene: Scene) -> None:
    """adb: the server on this host; SSH: sshd with all that serve a connection."""
    if scene.machine.entry.transport == "adb":
        scene.server.kill()
    else:
        scene.machine.restart_daemon()


def other_host_key(scene: Scene) -> None:
    board.new_host_key(scene.machine)
    scene.machine.restart_daemon()


def wipe(scene: Scene) -> None:
    """A factory reset that leaves the device running."""
    for path in scene.machine.disk.glob("**/farm"):
        sh("rm", "-rf", path)


def shift_times(scene: Scene) -> None:
    """Every file of farm on the device has a time that is a year off, as after a lost clock."""
    for root in scene.machine.disk.glob("**/farm"):
        for path in root.rglob("*"):
            if not path.is_symlink():
                seconds = path.stat().st_mtime + _YEAR_S
                os.utime(path, (seconds, seconds))


def second_controller(scene: Scene) -> None:
    """Another run asks for the device through a connection of its own, and is refused."""
    entry = scene.machine.entry
    transport = open_transport(entry)
    try:
        root = transport.default_root()
        helper = next(scene.machine.disk.glob("**/farm/farm-helper-*")).name
        words = ("lease", root, "take", "--owner", "ann@desk", "--run", "run-9", "--epoch", "1")
        done = transport.run(Command((f"{root}/{helper}", *words, "--ttl-s", "60"), timeout_s=20))
        answer = json.loads(done.text)["error"]
        assert (done.exit_code, answer["code"]) == (1, "held"), done
        assert answer["run"] == "run-1", answer
    finally:
        transport.close()


def heat(scene: Scene) -> None:
    _warm(scene, _HOT_ZONE_MC, _BATTERY_DC, _HOT_BATTERY_DC)


def cool(scene: Scene) -> None:
    _warm(scene, _ZONE_MC, _HOT_BATTERY_DC, _BATTERY_DC)


def _warm(scene: Scene, zone_mc: int, was_dc: int, battery_dc: int) -> None:
    scene.machine.set_sensor(ZONE, f"{zone_mc}\n")
    battery = scene.machine.disk / "sim" / "battery"
    if battery.exists():  # a phone's, as its battery service tells it
        text = battery.read_text()
        battery.write_text(text.replace(f"temperature: {was_dc}", f"temperature: {battery_dc}"))


def cap_clock(scene: Scene) -> None:
    scene.machine.set_sensor(CEILING, f"{CAPPED_KHZ}\n")


def uncap_clock(scene: Scene) -> None:
    scene.machine.set_sensor(CEILING, f"{FULL_KHZ}\n")


def cancel(scene: Scene) -> None:
    for session in scene.bench.agent._sessions.values():
        session.cancel(lambda job: job.job_id == scene.job_id, Interrupted("cancelled"))
