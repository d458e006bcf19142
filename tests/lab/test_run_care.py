"""Whole runs that share a device or lose one: it is waited for, recovered, or kept out."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import yaml

from farm.paths import quarantine_file
from tests.command import Farm
from tests.lab.machine import Machine
from tests.lab.test_run_lab import (
    TINY,
    Factory,
    end,
    jobs_on,
    results,
    runners_on,
    stop_runner,
    until,
)
from tests.lab.up import write_inventory

pytestmark = [pytest.mark.lab, pytest.mark.export]

#: Launches of a second or so: something can be done to each.
SLOW = (
    "--set", "workload.repetitions=30", "--set", "workload.decode=[256]",
    "--set", "workload.launches=2", "--set", "workload.max_launches=2",
)  # fmt: skip
ALONE = ("--cluster", "none")


def test_the_second_of_two_runs_waits_for_the_lease_and_both_pass(
    farm: Farm, adb_device: Factory, ssh_device: Factory, tmp_path: Path
) -> None:
    machines = [adb_device(), ssh_device()]
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, machines, local=False)
    words = (*ALONE, "--inventory", str(inventory))
    (tmp_path / "second").mkdir()
    other = Farm(farm.home, tmp_path / "second")
    first = farm.start("run", TINY, "--live", "off", *words, *SLOW)
    # Its jobs don't end before the second run was told of both.
    said = read_until(first, [f"{m.name}: measure" for m in machines], lambda i: stop(machines[i]))
    second = other.start("run", TINY, "--live", "off", "--quick", *words)
    said += read_until(second, [f"{m.name}: {m.name}: leased by " for m in machines])
    for machine in machines:
        for pid in runners_on(machine):
            os.kill(pid, signal.SIGCONT)
    for one, running in ((farm, first), (other, second)):
        said += end(running)
        assert running.returncode == 0, said
        for result in one.report()["results"]:
            assert result["outcome"] == "passed"
            # Waiting for somebody else is no attempt of its own.
            assert [attempt["outcome"] for attempt in result["attempts"]] == ["ran"]
    assert [jobs_on(machine) for machine in machines] == [[], []]
    assert not farm.processes()
    for machine in machines:
        (lease,) = machine.disk.glob("**/farm/lease")
        assert json.loads(lease.read_text())["released"] is True


def read_until(
    running: subprocess.Popen[str],
    texts: Sequence[str],
    react: Callable[[int], None] = lambda _index: None,
) -> str:
    """Read what a run prints until each text was seen once; `react` is told which one was."""
    assert running.stdout is not None
    missing, said = set(range(len(texts))), ""
    while missing:
        line = running.stdout.readline()
        assert line, said
        said += line
        for index in [index for index in missing if texts[index] in line]:
            missing.discard(index)
            react(index)
    return said


def stop(machine: Machine) -> None:
    """Stop the runner of a device in the middle of a launch."""
    until(partial(stop_runner, machine), 30)


def test_a_device_that_breaks_is_recovered_and_one_that_always_does_is_quarantined(
    farm: Farm, adb_device: Factory, ssh_device: Factory
) -> None:
    once, always = ssh_device(), adb_device()
    inventory, cycled = farm.cwd / "lab.yaml", farm.cwd / "cycled"
    write_inventory(inventory, [once, always], local=False)
    with_step(inventory, once, f"sh -c 'echo $FARM_DEVICE >> {shlex.quote(str(cycled))}'")
    words = (*ALONE, "--inventory", str(inventory), "--live", "off", *SLOW)
    running = farm.start("run", TINY, *words)
    assert running.stdout is not None
    said, broken = [], 0
    for line in running.stdout:
        said.append(line)
        if f"{always.name}: measure" in line:
            break_down(always)
        if f"{once.name}: measure" in line and not broken:
            broken += 1
            break_down(once)
    output = "".join(said) + end(running, 30)
    assert running.returncode == 3, output

    found, report = results(farm), farm.report()
    assert found[once.name]["outcome"] == "passed", output
    assert "retried" in found[once.name]["flags"]
    assert [a["outcome"] for a in found[once.name]["attempts"]] == ["errored", "ran"]
    assert cycled.read_text().split() == [once.name]
    devices = {device["name"]: device for device in report["devices"]}
    (step,) = devices[once.name]["incidents"]
    assert step["kind"] == "recovery"
    assert step["detail"].endswith("it answers again")

    assert found[always.name]["outcome"] == "errored"
    assert [a["outcome"] for a in found[always.name]["attempts"]] == ["errored"] * 3
    assert devices[always.name]["state"] == "quarantined"
    assert any(
        alarm.startswith(f"device {always.name} is quarantined: 3 infrastructure failures")
        for alarm in report["alarms"]
    ), report["alarms"]
    assert [jobs_on(device) for device in (once, always)] == [[], []]
    assert not farm.processes()

    assert states(farm, inventory)[always.name] == "quarantined"
    half_an_hour_passes(farm.home, always.name)
    assert states(farm, inventory) == {once.name: "ready", always.name: "ready"}
    assert json.loads(farm("quarantine", "list", "--json").stdout) == []


def with_step(inventory: Path, device: Machine, command: str) -> None:
    """Add a recovery step to a device of an inventory."""
    data = yaml.safe_load(inventory.read_text())
    (row,) = [row for row in data["devices"] if row["name"] == device.name]
    row["recover"] = [{"command": command}]
    inventory.write_text(yaml.safe_dump(data))


def break_down(device: Machine) -> None:
    """Cut the power in the middle of a launch; the device boots again."""
    stop(device)
    device.restart()


def states(farm: Farm, inventory: Path) -> dict[str, str]:
    done = farm("devices", "--json", "--wait", "15", "--inventory", str(inventory))
    assert done.returncode == 0, done.stderr
    return {row["entry"]["name"]: row["state"] for row in json.loads(done.stdout)}


def half_an_hour_passes(home: Path, name: str) -> None:
    """Date a quarantine back, by more than its cooldown."""
    path = quarantine_file(home)
    data = json.loads(path.read_text())
    data[name]["quarantine"]["since"] = "2020-01-01T00:00:00+00:00"
    path.write_text(json.dumps(data))
