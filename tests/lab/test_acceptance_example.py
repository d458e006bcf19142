"""examples/pytest on a lab device: one test passes, one fails with the reason a person needs."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import SOURCES, Farm, share_native
from tests.lab.machine import Machine
from tests.lab.test_deploy_guide import current_on
from tests.lab.test_run_lab import jobs_on
from tests.lab.up import write_inventory

pytestmark = [pytest.mark.lab, pytest.mark.export]

EXAMPLE = SOURCES / "examples" / "pytest" / "test_acceptance.py"


def test_the_acceptance_tests_say_what_passed_and_why_not(
    farm: Farm, adb_device: Callable[..., Machine]
) -> None:
    phone = adb_device()
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, [phone], local=False)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(EXAMPLE), "-p", "farm.api.pytest_plugin", "-p",
         "no:cacheprovider", "-ra", f"--rootdir={farm.cwd}", "--farm-inventory", str(inventory),
         "--junitxml=junit.xml"],
        cwd=farm.cwd, capture_output=True, text=True, timeout=280, check=False,
        env={**farm.environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert done.returncode == 1, text
    assert "1 failed, 1 passed" in text
    # What a person needs: which cell, what was found, what had to be, and how to look again.
    assert "1/1 judged: 0 passed, 1 failed" in text
    assert re.search(r"Failed: .*: perplexity \d+, had to be <= 100", text)
    assert f":{phone.name}" in text
    assert "again: farm rerun " in text
    cases = {case.get("name"): case for case in ET.parse(farm.cwd / "junit.xml").iter("testcase")}
    for name, case in cases.items():
        found = {p.get("name"): p.get("value") for p in case.iter("property")}
        assert str(found["farm.device"]).startswith(phone.name), name
    failed = cases["test_it_predicts_text_well"]
    folder = next(p.get("value") for p in failed.iter("property") if p.get("name") == "farm.run")
    assert (Path(str(folder)) / "report.html").exists()
    said = [p.get("value") for p in cases["test_it_answers_the_same_twice"].iter("property")]
    assert sum(str(text).startswith("> Once upon a time") for text in said) == 2
    assert jobs_on(phone) == []


def test_a_bundle_is_deployed_by_a_host_that_never_saw_the_run(
    farm: Farm, adb_device: Callable[..., Machine], tmp_path: Path
) -> None:
    phone = adb_device()
    write_inventory(farm.cwd / "lab.yaml", [phone], local=False)
    config = str(SOURCES / "configs" / "tiny.yaml")
    gates = ("--set", "gates={perplexity: '<= 1.02x host'}", "--cluster", "none", "--live", "off")
    done = farm("run", config, "--inventory", "lab.yaml", "--quick", *gates)
    assert done.returncode == 0, done.stdout + done.stderr
    plain, whole = "plain.farm.zip", "whole.farm.zip"
    assert farm("bundle", "latest", "--to", plain).returncode == 0
    done = farm("bundle", "latest", "--with-artifacts", "--to", whole)
    assert done.returncode == 0, done.stderr

    other = Farm(tmp_path / "other", farm.cwd)
    share_native(other.home)
    to = ("--to", f"name={phone.name}", "--inventory", "lab.yaml", "--name", "kiosk")
    done = other("deploy", plain, *to)
    assert done.returncode != 0
    assert "farm bundle RUN --with-artifacts" in done.stderr
    done = other("deploy", whole, *to)
    assert done.returncode == 0, done.stdout + done.stderr
    assert current_on(phone)
    done = other("compare", whole, "latest")
    assert done.returncode == 0, done.stdout + done.stderr

    content = bytearray((farm.cwd / whole).read_bytes())
    content[len(content) // 2] ^= 1
    (farm.cwd / whole).write_bytes(content)
    done = other("deploy", whole, *to)
    assert done.returncode == 2
    assert "was changed or damaged since it was written" in done.stderr
