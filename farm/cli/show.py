"""How commands write: JSON or text on stdout, progress on the terminal or on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from farm.core.errors import ConfigError

if TYPE_CHECKING:  # every command imports this module, and `farm --help` has to be quick
    from farm.core.view import ViewEvent


def print_json(data: Any) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(data, indent=1, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """Write text to stdout, ending in one newline."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def say(text: str) -> None:
    """Write a line of progress to stderr."""
    sys.stderr.write(text + "\n")


def print_table(renderable: Any) -> None:
    """Write a rich renderable to stdout, coloured only on a terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    Console(file=sys.stdout, width=width, highlight=False).print(renderable)


@contextlib.contextmanager
def watching(live: str, *, as_json: bool) -> Iterator[Callable[[ViewEvent], None]]:
    """Show events while the block runs: a live view, or plain lines.

    Raises:
        ConfigError: `live` is none of auto, on, off.
    """
    from farm.ui.live import LiveView
    from farm.ui.plain import PlainView

    if live not in ("auto", "on", "off"):
        raise ConfigError(f"--live {live!r}: write auto, on or off")
    stream = sys.stderr if as_json else sys.stdout
    wanted = live == "on" or (live == "auto" and stream.isatty())
    view = LiveView(stream) if wanted else PlainView(stream)
    with view:
        yield view.emit
