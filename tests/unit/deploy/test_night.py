"""Only a night that ends with exit code 0 deploys anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from farm.cli.nightly import _deployed
from farm.commands.nightly import Told
from farm.core.errors import ConfigError
from farm.core.spec import DeployWish
from farm.deploy import begin, night, work
from farm.deploy.begin import DeployRequest
from farm.deploy.night import wish_of
from farm.run.run import Finished
from tests.unit.reports.builders import report


@pytest.mark.parametrize("code", [1, 2, 3, 70, 130])
def test_after_any_other_end_nobody_even_looks(tmp_path: Path, code: int) -> None:
    assert wish_of(Finished(replace(report(), exit_code=code), tmp_path), tmp_path) is None


def test_a_red_night_says_that_it_deploys_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red = replace(report(), exit_code=1, config={"deploy": {"to": "ring=canary"}})
    assert _deployed(Finished(red, tmp_path), Told(), "none", as_json=False) == 1
    assert "nothing is deployed: the night ended with exit 1" in capsys.readouterr().err
    quiet = Finished(replace(red, config={}), tmp_path)
    assert _deployed(quiet, Told(), "none", as_json=True) == 1
    assert capsys.readouterr().err == ""


def test_after_a_green_night_its_own_plan_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        wish_of(Finished(replace(report(), exit_code=0), tmp_path), tmp_path)


@pytest.mark.parametrize("inventory", ["/etc/farm/inventory.yaml", ""])
def test_a_night_deploys_to_its_own_inventory_also_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inventory: str
) -> None:
    saved = SimpleNamespace(asked={"inventory": inventory})
    asked: list[DeployRequest] = []

    def plan(request: DeployRequest, *_rest: object) -> SimpleNamespace:
        asked.append(request)
        return SimpleNamespace(saved=None)

    monkeypatch.setattr(night, "open_run", lambda *_: SimpleNamespace(saved=saved))
    monkeypatch.setattr(begin, "plan", plan)
    monkeypatch.setattr(work, "begin", lambda *_: None)
    finished = Finished(report(), tmp_path)
    night.deploy_night(DeployWish(to="ring=canary"), finished, tmp_path, lambda *_: None)
    assert [one.inventory for one in asked] == [Path(inventory) if inventory else None]
