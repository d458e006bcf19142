"""The farm command over real adb and ssh devices, and what a user would do to them meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.command import CONFIGS, Farm
from tests.lab.host import sh
from tests.lab.machine import Machine
from tests.lab.up import write_inventory
from tests.pace import slack

TINY = str(CONFIGS / "tiny.yaml")
#: Long enough that something can happen in the middle.
LONG = ("--set", "workload.launches=60", "--set", "workload.budget_s=12")
#: And each launch long enough to be caught at work.
LONGER = (
    *LONG, "--set", "workload.budget_s=600",
    "--set", "workload.repetitions=100", "--set", "workload.decode=[128, 256, 320]",
)  # fmt: skip

pytestmark = [pytest.mark.lab, pytest.mark.export]

Factory = Callable[..., Machine]


def results(farm: Farm) -> dict[str, dict[str, Any]]:
    return {result["device"]["name"]: result for result in farm.report()["results"]}


def jobs_on(machine: Machine) -> list[str]:
    """Runner and supervisor processes, and work folders."""
    lines = [" ".join(words) for words in machine.processes().values()]
    jobs = [line for line in lines if "farm-runner" in line or "supervise" in line]
    return jobs + machine.work_folders()


def runners_on(machine: Machine) -> list[int]:
    """Processes of runners, without what supervises them; a phone's may have a loader in front."""
    return [
        pid
        for pid, words in machine.processes().items()
        if "./farm-runner" in words and "farm-helper" not in words[0]
    ]


def stop_runner(machine: Machine) -> bool:
    """Stop a runner in the middle of its work; False when none runs at this moment."""
    runners = runners_on(machine)
    for pid in runners:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    return bool(runners) and runners_on(machine) == runners


def until(true: Callable[[], bool], limit_s: float) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def start_until(farm: Farm, text: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a run and return once it printed a line with this text."""
    running = farm.start("run", TINY, "--live", "off", *arguments)
    assert running.stdout is not None
    seen = []
    for line in running.stdout:
        seen.append(line)
        if text in line:
            return running
    running.communicate()
    raise AssertionError(f"ended before {text!r}: {''.join(seen)}")


def end(running: subprocess.Popen[str], limit_s: float = 200) -> str:
    output, _ = running.communicate(timeout=limit_s)
    return output


@pytest.mark.ray
def test_five_devices_pass_and_the_second_run_pushes_nothing(
    farm: Farm, adb_device: Factory, ssh_device: Factory
) -> None:
    machines = [*(adb_device() for _ in range(3)), *(ssh_device() for _ in range(2))]
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, machines, local=False)
    few = ("--set", "workload.launches=2", "--set", "workload.max_launches=2")
    words = ("--inventory", str(inventory), "--live", "off", *few)
    done = farm("run", TINY, *words, limit_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5/5 judged: 5 passed, 0 failed; speed not gated -> exit 0" in done.stdout
    first = results(farm)
    assert {r["device"]["transport"] for r in first.values()} == {"adb", "ssh"}
    for result in first.values():
        last = [s for s in result["correctness"]["stages"] if s["to"] == "device_pte"]
        assert all(s["bit_equal"] for s in last if s["from"] == "host_pte")
    done = farm("run", TINY, *words, limit_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    second = results(farm)
    assert {name: r["pushed_bytes"] for name, r in second.items()} == dict.fromkeys(first, 0)
    assert [jobs_on(machine) for machine in machines] == [[]] * 5


def test_killed_device_is_retried_on_an_equal_one(farm: Farm, adb_device: Factory) -> None:
    machines = {machine.name: machine for machine in (adb_device(), adb_device())}
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, list(machines.values()), local=False)
    pool = "devices=[{pool: phones, select: 'transport=adb', any: 1}]"
    running = start_until(
        farm, "measure", "--cluster", "none", "--inventory", str(inventory), "--set", pool, *LONG
    )
    (used,) = [name for name, machine in machines.items() if jobs_on(machine)]
    machines[used].kill()
    output = end(running)
    assert running.returncode == 0, output
    (result,) = farm.report()["results"]
    assert "retried" in result["flags"]
    assert [a["outcome"] for a in result["attempts"]] == ["errored", "ran"]
    (other,) = set(machines) - {used}
    assert result["device"]["name"] == other
    assert jobs_on(machines[other]) == []
    assert not farm.processes()


def test_killed_lone_device_is_errored_and_the_others_finish(
    farm: Farm, adb_device: Factory, ssh_device: Factory
) -> None:
    doomed, healthy = ssh_device(), adb_device()
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, [doomed, healthy], local=False)
    running = start_until(
        farm, f"{doomed.name}: measure", "--cluster", "none", "--inventory", str(inventory), *LONG
    )
    doomed.kill()
    output = end(running)
    assert running.returncode == 3, output
    found = results(farm)
    assert found[healthy.name]["outcome"] == "passed"
    assert found[doomed.name]["outcome"] == "errored"
    assert doomed.name in found[doomed.name]["reason"]
    # It is looked for, not tried again while it is gone.
    assert "device_missing" in found[doomed.name]["flags"]
    assert len(found[doomed.name]["attempts"]) == 1
    assert any(f"{doomed.name} was lost" in alarm for alarm in farm.report()["alarms"])
    assert jobs_on(healthy) == []
    assert not farm.processes()


@pytest.mark.ray
def test_killed_controllers_leave_nothing_for_long_and_the_next_run_passes(
    farm: Farm, adb_device: Factory, ssh_device: Factory
) -> None:
    inventory = farm.cwd / "lab.yaml"
    machines: list[Machine] = []
    running = []
    for cluster, used in (("none", [adb_device(), ssh_device()]), ("local", [ssh_device()])):
        write_inventory(inventory, used, local=False)
        words = ("--cluster", cluster, "--inventory", str(inventory), *LONGER)
        running.append(start_until(farm, f"{used[-1].name}: measure", *words))
        for machine in used:
            # A runner that never ends by itself: only the device's supervisor can end it in time.
            until(partial(stop_runner, machine), 30)
        machines += used
    for controller in running:
        controller.kill()
    killed = time.monotonic()
    for controller in running:
        end(controller)
    time.sleep(5)
    assert all(runners_on(machine) for machine in machines), "they outlive it for a while"
    until(lambda: not any(runners_on(machine) for machine in machines), 60)
    assert time.monotonic() - killed < 60
    # Ray's own agents try for a while to tell a dead head that it is dead.
    until(lambda: not farm.processes(), 90)
    write_inventory(inventory, machines, local=False)
    done = farm("run", TINY, "--quick", "--inventory", str(inventory), "--live", "off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [jobs_on(machine) for machine in machines] == [[], [], []]


def test_interrupt_leaves_nothing_on_devices_that_answer(
    farm: Farm, adb_device: Factory, ssh_device: Factory
) -> None:
    machines = [adb_device(), ssh_device()]
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, machines, local=False)
    running = start_until(
        farm, f"{machines[1].name}: measure", "--inventory", str(inventory), *LONG
    )
    running.send_signal(signal.SIGINT)
    sent = time.monotonic()
    output = end(running, 30)
    took = time.monotonic() - sent
    assert running.returncode == 130, output
    assert took < 4 * slack()
    assert [jobs_on(machine) for machine in machines] == [[], []]
    assert not farm.processes()
    assert {r["flags"][0] for r in farm.report()["results"]} == {"interrupted"}


def test_device_without_space_is_named_and_errs_alone(
    farm: Farm, adb_device: Factory, ssh_device: Factory
) -> None:
    full, healthy = adb_device(), ssh_device()
    full.fill(2 << 20)
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, [full, healthy], local=False)
    words = ("--cluster", "none", "--inventory", str(inventory), "--live", "off", "--quick")
    done = farm("run", TINY, *words)
    found = results(farm)
    assert found[healthy.name]["outcome"] == "passed"
    assert found[full.name]["outcome"] in ("errored", "skipped")
    assert "storage" in found[full.name]["reason"] or "space" in found[full.name]["reason"]
    assert "MiB" in found[full.name]["reason"]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture
def small_disk(lab: None, tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=8m", "farm-small", folder)
    yield folder
    sh("umount", folder)


def test_full_farm_home_is_named_and_nothing_is_half_written(
    small_disk: Path, tmp_path: Path
) -> None:
    farm = Farm(small_disk / "home", tmp_path)
    (small_disk / "filler").write_bytes(bytes((8 << 20) - (96 << 10)))
    done = farm("export", TINY, "--json")
    assert done.returncode == 3, done.stdout + done.stderr
    (export,) = json.loads(done.stdout)
    assert "no space" in export["error"]["message"]
    assert str(small_disk) in export["error"]["message"]
    store = small_disk / "home" / "store"
    left = [p.relative_to(store).parts[0] for p in store.rglob("*") if p.is_file()]
    assert set(left) <= {"gate", "locks"}, "nothing half-written"
