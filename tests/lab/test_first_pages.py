"""The commands of docs/start/first-phone.md and first-board.md, on a phone and a board of the lab.

Those of first-nightly.md are run by tests/integration/test_nightly.py, with less budget.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command import SOURCES, Farm
from tests.lab.machine import Machine
from tests.lab.up import write_inventory

pytestmark = [pytest.mark.lab, pytest.mark.export]


def page_commands(path: Path) -> Iterator[list[str]]:
    """Every line of every block of shell."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text(), re.S | re.M):
        yield from (shlex.split(line) for line in block.splitlines() if line.strip())


@pytest.mark.parametrize("kind", ["phone", "board"])
def test_the_first_page_does_what_it_says(
    farm: Farm,
    adb_device: Callable[..., Machine],
    ssh_device: Callable[..., Machine],
    kind: str,
) -> None:
    machine = adb_device() if kind == "phone" else ssh_device()
    write_inventory(farm.cwd / "lab.yaml", [machine], local=False)
    (farm.cwd / "configs").symlink_to(SOURCES / "configs")
    names = {f"{kind}1": machine.name, f"name={kind}1": f"name={machine.name}"}
    printed = ""
    asked = list(page_commands(SOURCES / "docs" / "start" / f"first-{kind}.md"))
    assert len(asked) >= 5
    for program, *words in asked:
        assert program == "farm"
        done = subprocess.run(
            [sys.executable, "-m", "farm", *(names.get(word, word) for word in words)],
            cwd=farm.cwd, capture_output=True, text=True, timeout=280, check=False,
            # The page's reader has the device attached; the lab's is found by its inventory.
            env={**os.environ, **farm.environment, "FARM_INVENTORY": "lab.yaml"},
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout + done.stderr)
        printed = done.stdout
    assert machine.name in printed
    assert "1/1 judged: 1 passed" in printed
