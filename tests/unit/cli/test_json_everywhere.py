"""Every command says it as JSON too where a machine may want that, and its help is whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from farm.cli.commands import app

#: Commands without `--json`, and why.
WITHOUT = {
    "farm watch": "a view for people; the run folder's events.jsonl is for machines",
    "farm report": "--format json",
    "farm schema": "prints JSON",
    "farm devices shell": "a shell",
    "farm devices trust": "asks a person",
    "farm baseline show": "prints JSON",
    "farm baseline export": "writes JSON",
}


def commands(command: Any, name: str) -> Iterator[tuple[str, set[str]]]:
    """Every command that does something, with its options."""
    inner = getattr(command, "commands", {})
    options = {option for parameter in command.params for option in parameter.opts}
    if not inner or getattr(command, "invoke_without_command", False):
        yield name, options
    for word, one in inner.items():
        yield from commands(one, f"{name} {word}")


def cut(command: Any, name: str, parent: Any, width: int) -> Iterator[str]:
    """Lines of help that end in the middle of a sentence or are wider than the terminal."""
    how: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True}
    context = command.make_context(
        name, ["--any"], parent=parent, resilient_parsing=True, terminal_width=width, **how
    )
    for line in command.get_help(context).splitlines():
        ends = line.rstrip().endswith("...") and not line.startswith("Usage")
        if ends or len(line) > width:
            yield f"{context.command_path}: {line}"
    for word, one in getattr(command, "commands", {}).items():
        yield from cut(one, word, context, width)


@pytest.mark.parametrize("width", [60, 80])
def test_help_is_whole_in_a_narrow_terminal(width: int) -> None:
    assert list(cut(get_command(app), "farm", None, width)) == []


def test_every_command_has_json_or_a_reason() -> None:
    found = dict(commands(get_command(app), "farm"))
    assert len(found) > 40
    without = {name for name, options in found.items() if "--json" not in options}
    assert without == set(WITHOUT)
