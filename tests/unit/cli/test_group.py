"""Commands are built when they are asked for, and listed without."""

from __future__ import annotations

import pytest
import typer.main
from typer.testing import CliRunner

from farm.cli import group
from farm.cli.commands import PARTS, app


def test_a_list_of_commands_builds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []
    monkeypatch.setattr(group, "get_group", built.append)
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert [name for name in PARTS if f"\n  {name} " not in shown.output] == []
    assert built == []


def test_a_list_says_what_each_command_says() -> None:
    farm = typer.main.get_group(app)
    assert isinstance(farm, group.Parts)
    assert list(farm.commands) == list(PARTS)
    assert {name: one.help for name, one in farm.commands.items()} == farm.helps()
    assert all(farm.helps().values())


def test_a_command_is_built_once() -> None:
    farm = typer.main.get_group(app)
    assert farm.commands["run"] is farm.commands["run"]
    assert farm.commands.get("walk") is None
