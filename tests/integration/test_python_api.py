"""Examples of the Python API as they stand: the script, and the notebook beside an event loop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import SOURCES, Farm

pytestmark = pytest.mark.export

EXAMPLES = SOURCES / "examples" / "python"
#: As a notebook's kernel does: code runs in the main thread, in which a loop runs already.
KERNEL = """\
import asyncio, json, sys

async def cells():
    names = {}
    for cell in json.load(open(sys.argv[1]))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "cell", "exec"), names)
    run = names["run"]
    print(json.dumps([run.exit_code, len(run.cells), len(run.samples()), len(run.stages())]))

asyncio.run(cells())
"""


def test_script_notebook_and_a_bundle_between_them(farm: Farm) -> None:
    (farm.cwd / "configs").symlink_to(SOURCES / "configs")

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=farm.cwd, env=farm.environment, capture_output=True,
            text=True, timeout=280, check=False,
        )  # fmt: skip
        # A busy machine may leave the speed of so short a run undecided; never more than that.
        assert done.returncode in (0, 3), done.stdout + done.stderr
        return done.stdout

    counted = python("-c", KERNEL, str(EXAMPLES / "look.ipynb")).splitlines()
    code, cells, samples, stages = json.loads(counted[-1])
    assert code in (0, 3)
    assert cells == 1
    assert samples > 0
    assert stages > 0
    assert "1/1 judged" in counted[0] or "0/1 judged" in counted[0]

    made = farm("bundle", "latest", "--json")
    assert made.returncode == 0, made.stderr
    path = json.loads(made.stdout)["path"]
    shown = python(str(EXAMPLES / "look.py"), "configs/tiny.yaml", path)
    assert "median_before" in shown
    assert "device_pte" in shown

    again = farm("plan", path, "--select", "transport=local", "--json")
    assert again.returncode == 0, again.stderr
    assert [cell["cell_id"] for cell in json.loads(again.stdout)["cells"]]


def test_a_run_that_cant_begin_raises_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import farm as package

    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    path = tmp_path / "c.yaml"
    path.write_text("name: x\nmodel: [tiny-llama]\n")
    with pytest.raises(package.FarmError, match=f"{path}: model") as found:
        package.run(path, cluster="none", out=tmp_path / "runs")
    assert found.value.exit_code == 2
    assert not (tmp_path / "runs").exists()
