"""A device begins when its program is there; what judges it computes meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command import CONFIGS, Farm

_INVENTORY = "devices: [{name: board, transport: sim}]\ndefaults: {adb: none}\n"


def test_a_device_is_measured_while_its_reference_computes(farm: Farm, tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_text(_INVENTORY)
    done = farm(
        "run", str(CONFIGS / "tiny.yaml"), "--quick", "--cluster", "none", "--live", "off",
        "--inventory", str(tmp_path / "inventory.yaml"),
        "--set", "correctness.tokens=37", "--set", "correctness.canary=false",
        "--set", "workload.launches=1", "--set", "workload.decode=[8]",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    folder = farm.cwd / "runs" / "latest"
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    (started,) = (event["at"] for event in events if event["kind"] == "JobStarted")
    tasks = {event["task"].partition(":")[0]: event for event in events if event["kind"] == "task"}
    assert not tasks["reference"]["cache_hit"], "other tokens than any other test's"
    assert tasks["tokens"]["at"] <= started < tasks["reference"]["at"]
    report = json.loads((folder / "report.json").read_text())
    assert [result["outcome"] for result in report["results"]] == ["passed"]
    named = [device["name"] for device in report["devices"]]
    assert named == ["board"], "this machine is no device where the inventory names others"
