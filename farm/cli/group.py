"""Groups of commands whose help gives each command's first sentence whole."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, cast

import typer
from typer.core import TyperGroup
from typer.main import get_group

#: What stands behind a name: a command's function, or a group of commands.
Part = Callable[..., Any] | typer.Typer


class Commands(TyperGroup):
    """As typer's, whose own summaries end in the middle of a sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands, each with a summary on as many lines as it takes."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(text)) for name, text in self.helps().items()])

    def helps(self) -> dict[str, str]:
        """Each command's help, in the order of the list."""
        return {name: one.help or "" for name, one in self.commands.items() if not one.hidden}


class Parts(Commands):
    """Commands that are built when somebody asks for them. A list of them takes none of them."""

    parts: ClassVar[Mapping[str, Part]]

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = cast(Any, _Built(self.parts))

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of the table."""
        return list(self.parts)

    def helps(self) -> dict[str, str]:
        """Each command's help, in the order of the table."""
        return {name: _help(part) for name, part in self.parts.items()}


class _Built(Mapping[str, Any]):
    """Commands by name. What was built is kept."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            alone = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
            part = self._parts[name]
            if isinstance(part, typer.Typer):
                alone.add_typer(part, name=name)
            else:
                alone.command(name)(part)
            self._built[name] = get_group(alone).commands[name]
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _help(part: Part) -> str:
    if isinstance(part, typer.Typer):
        return str(part.info.help)
    return inspect.getdoc(part) or ""


def _summary(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[a-z`)])[.;:] ", paragraph)[0].rstrip(".") + "."
