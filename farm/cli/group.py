"""A group of commands whose help gives each command's first sentence whole."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperGroup


class Commands(TyperGroup):
    """As typer's, whose own summaries end in the middle of a sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands, each with a summary on as many lines as it takes."""
        rows = [
            (name, _summary(command.help or ""))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _summary(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[a-z`)])[.;:] ", paragraph)[0].rstrip(".") + "."
