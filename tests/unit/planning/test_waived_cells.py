"""A waiver whose cells aren't in the plan is refused before anything runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farm.core.errors import ConfigError
from farm.planning import planning
from farm.planning.planning import Prepared, RunOptions, load, prepare
from tests.unit.core import builders as b

CONFIG = """
name: n
models: [tiny-llama]
waivers: [{cells: "%s", gate: regress, until: 2027-01-01, reason: known}]
"""


def planned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cells: str,
    select: str,
    overrides: tuple[str, ...] = (),
) -> Prepared:
    async def found(*_: Any, **__: Any) -> list[Any]:
        return [b.device("pixel8")]

    monkeypatch.setattr(planning, "find_devices", found)
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG % cells)
    runtime: Any = SimpleNamespace(sites={})
    return asyncio.run(
        prepare(load(RunOptions(path, select=select, overrides=overrides)), runtime, tmp_path)
    )


def test_a_waiver_of_a_planned_cell_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned(tmp_path, monkeypatch, "*:pixel8", "").plan.planned == 1


def test_a_waiver_of_no_planned_cell_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: waivers\.0\.cells: .*:pixel8`"):
        planned(tmp_path, monkeypatch, "*:pixel9", "")


def test_a_selection_may_leave_out_what_a_waiver_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned(tmp_path, monkeypatch, "*:pixel9", "transport=adb").plan.planned == 1


@pytest.mark.parametrize("name", ["s23", "pixel9", "emulator-5554"])
def test_an_excluded_phone_may_be_unplugged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    excluded = (f"exclude=[{{device: {name}}}]",)
    assert planned(tmp_path, monkeypatch, "*", "", excluded).plan.planned == 1


def test_a_misspelt_exclusion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"exclude\.0\.device: 'pixl8'.*did you mean pixel8\?"):
        planned(tmp_path, monkeypatch, "*", "", ("exclude=[{device: pixl8}]",))
