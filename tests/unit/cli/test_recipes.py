"""`farm recipes`: the list, and the comparison of a run that ended."""

from __future__ import annotations

import json
from pathlib import Path

from farm.reports import renderers
from tests.unit.cli.test_names import farm
from tests.unit.reports.builders import report


def test_recipes_are_listed_and_compared_from_a_run(tmp_path: Path) -> None:
    listed = json.loads(farm("recipes", "--json", cwd=tmp_path).stdout)
    assert {"xnnpack-8da4w", "xnnpack-8da4w-hqq-out8"} <= {recipe["name"] for recipe in listed}
    folder = tmp_path / "runs" / "20260102-030405-llama-q4-1f2e"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(renderers.render(report(), "json"))
    done = farm("recipes", "compare", str(folder), "--json", cwd=tmp_path)
    assert done.returncode == report().exit_code, done.stderr
    found = json.loads(done.stdout)
    assert found["plot"] == str(folder / "recipes.svg")
    assert (folder / "recipes.svg").read_text().startswith("<svg")
    by_device = {group["device"]: group["rows"][0] for group in found["groups"]}
    assert by_device["local"]["kl"] is not None
    assert by_device["pixel8"]["off_front"] == "errored"
    table = farm("recipes", "compare", str(folder), "--plot", "p.svg", cwd=tmp_path)
    assert "Plot: p.svg" in table.stdout
    assert (tmp_path / "p.svg").read_bytes() == (folder / "recipes.svg").read_bytes()
    wrong = farm("recipes", "compare", "nothing", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "no run 'nothing'" in wrong.stderr
