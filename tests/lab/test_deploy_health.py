"""The health check of a stage, failed for real: a device that got slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from farm.deploy import begin
from tests.command import CONFIGS, Farm
from tests.lab.counted import count_speeds
from tests.lab.machine import Machine
from tests.lab.test_deploy_faults import Fleet
from tests.lab.up import write_inventory

pytestmark = [pytest.mark.lab, pytest.mark.export]

#: Decode alone, in windows that are long enough to count.
TIMED = (
    "{prefill: [], decode: [32], launches: 3, max_launches: 3, repetitions: 2, cold_launches: 0}"
)


@pytest.fixture
def farm(new_home: Path, tmp_path: Path) -> Farm:
    """What is deployed, and its history, is of one test."""
    return Farm(new_home, tmp_path)


def test_a_device_that_got_slow_since_the_run_gets_its_old_version_back(
    farm: Farm, ssh_device: Callable[..., Machine]
) -> None:
    board = ssh_device()
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, [board], local=False)
    quiet = ("--cluster", "none", "--live", "off", "-i", str(inventory), "--set", "gates={}")
    # The board is on this machine: in the second run no reference is computed beside it.
    for _ in range(2):
        done = farm("run", str(CONFIGS / "tiny.yaml"), *quiet, "--set", f"workload={TIMED}")
        assert done.returncode == 0, done.stdout + done.stderr
    count_speeds(farm)
    request = begin.DeployRequest(
        run="latest", to="transport=ssh", out=farm.cwd / "runs", inventory=inventory, name="kiosk"
    )
    planned = begin.plan(request, farm.home)
    (one,) = planned.saved.assigned
    rate = one.manifest.rate
    assert rate is not None, one.manifest.no_rate
    fleet = Fleet(farm.home, planned.saved, {board.name: board})
    # Other programs have this machine too: a tenth of the run's rate is fast enough here.
    lenient = replace(one, manifest=replace(one.manifest, rate=replace(rate, low=rate.low / 10)))
    assert fleet.roll(replace(planned.saved, assigned=(lenient,))).outcome == "deployed"
    slow = fleet.version("slow", board.name)
    board.limit_cpu(0.05)
    finished = fleet.roll(slow)
    board.unlimit()
    assert (finished.outcome, finished.stage) == ("rolled_back", 1), finished
    ((device, why),) = finished.failures
    assert device == board.name
    assert why.startswith("check: ")
    assert f"tok/s; the run's interval begins at {rate.low:.1f}" in why
    assert fleet.current(board.name) == one.manifest.version
