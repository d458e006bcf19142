"""`farm recipes compare CONFIG` on two devices: cut short, gone on with, and whole at the end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.command import Farm
from tests.lab.machine import Machine
from tests.lab.up import write_inventory
from tests.pace import slack

pytestmark = [pytest.mark.lab, pytest.mark.export]

RECIPES = [
    "xnnpack-8da4w",
    "xnnpack-8da4w-hqq",
    "xnnpack-8da4w-out8",
    "xnnpack-8da4w-hqq-out8",
    "xnnpack-8da4w-rot",
    "xnnpack-int8",
]
CONFIG = f"""
name: recipes
models: [tiny-llama]
matrix: {{recipe: {json.dumps(RECIPES)}, threads: [1]}}
devices: [{{each: ""}}]
workload: {{prefill: [32], decode: [32], launches: 1, max_launches: 1, repetitions: 2}}
export: {{cpus: 1}}
correctness: {{tokens: 64}}
"""
NUMBERS = ("kl", "perplexity", "size_bytes", "peak_rss_bytes", "prefill_tok_s", "decode_tok_s")


def finished_exports(farm: Farm) -> dict[str, float]:
    """Seconds of each export that was made, by recipe."""
    found = farm.report()["exports"]
    return {export["recipe"]: export["seconds"] for export in found if export["error"] is None}


def test_six_recipes_on_two_devices(
    farm: Farm,
    adb_device: Callable[..., Machine],
    ssh_device: Callable[..., Machine],
    tmp_path: Path,
) -> None:
    machines = [adb_device(), ssh_device()]
    inventory, config = farm.cwd / "lab.yaml", farm.cwd / "six.yaml"
    write_inventory(inventory, machines, local=False, virtual=True)
    config.write_text(CONFIG)
    words = ("--cluster", "none", "--live", "off")
    running = farm.start("recipes", "compare", str(config), "--inventory", str(inventory), *words)
    assert running.stdout is not None
    for line in running.stdout:
        if ": measure" in line:
            break
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=300 * slack())
    assert running.returncode == 130, said
    began = finished_exports(farm)
    assert 0 < len(began) < len(RECIPES), "cut short in the middle"

    done = farm("recipes", "compare", "latest", "--resume", *words, "--json", limit_s=500 * slack())
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"].startswith("12/12 judged: 12 passed")
    groups = {group["device"]: group["rows"] for group in found["groups"]}
    assert set(groups) == {machine.name for machine in machines}
    for rows in groups.values():
        assert [row["recipe"] for row in rows] == RECIPES
        for row in rows:
            reasons = dict(row["reasons"])
            assert all(row[name] is not None or reasons[name] for name in NUMBERS), row
            # How good and how large a recipe is doesn't depend on how busy a device is.
            assert all(row[name] for name in NUMBERS[:3]), row
        finer = {row["recipe"]: row["kl"] for row in rows}
        assert finer["xnnpack-int8"] < finer["xnnpack-8da4w"]
        sizes = {row["recipe"]: row["size_bytes"] for row in rows}
        assert sizes["xnnpack-8da4w-out8"] > sizes["xnnpack-8da4w"]
    exports = finished_exports(farm)
    assert set(exports) == set(RECIPES)
    assert exports.items() >= began.items(), "each was made once"
    drawn = " ".join(ElementTree.parse(found["plot"]).getroot().itertext())
    assert all(machine.name in drawn for machine in machines)
