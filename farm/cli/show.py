"""How commands write: JSON or text on stdout, progress on the terminal or on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.core.errors import ConfigError

if TYPE_CHECKING:  # every command imports this module, and `farm --help` has to be quick
    from farm.core.view import ViewEvent
    from farm.ui.live import LiveView
    from farm.ui.plain import PlainView


def print_json(data: Any) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(data, indent=1, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """Write text to stdout, ending in one newline."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def told(data: Any, text: str, *, as_json: bool) -> None:
    """Say what a command did, for a program or for a person."""
    if as_json:
        print_json(data)
    else:
        print_text(text)


def say(text: str) -> None:
    """Write a line of progress to stderr, now: whoever reads a pipe waits for it."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_table(renderable: Any) -> None:
    """Write a rich renderable to stdout, coloured only on a terminal."""
    from rich.console import Console

    # COLUMNS counts for a pipe too; without it a table shall not depend on where it goes.
    told = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    Console(file=sys.stdout, width=None if told else 160, highlight=False).print(renderable)


@contextlib.contextmanager
def watching(
    live: str,
    *,
    as_json: bool,
    begin: str = "",
    cancel: Callable[[str, str], None] | None = None,
) -> Iterator[Callable[[ViewEvent], None]]:
    """Show events while the block runs: a live view, or plain lines.

    Args:
        live: `auto`, `on` or `off`.
        as_json: Standard output is for a document.
        begin: What goes on from the first moment; empty: the first event says it.
        cancel: Ends a cell of a run, given its folder and the cell; None: through its socket.

    Raises:
        ConfigError: `live` is none of auto, on, off.
    """
    from farm.core.view import Preparing

    if live not in ("auto", "on", "off"):
        raise ConfigError(f"--live {live!r}: write auto, on or off")
    stream = sys.stderr if as_json else sys.stdout
    wanted = live == "on" or (live == "auto" and stream.isatty())
    if wanted:
        # What draws takes half a second to be imported, and then draws over this.
        stream.write(f"{begin}\r")
        stream.flush()
        from farm.ui.live import LiveView

        view: LiveView | PlainView = LiveView(stream, cancel=cancel or _cancel, terminal=sys.stdin)
    else:
        from farm.ui.plain import PlainView

        view = PlainView(stream)
    with view:
        if begin:
            view.emit(Preparing(begin))
        yield view.emit


def _cancel(folder: str, cell_id: str) -> None:
    from farm.run import control
    from farm.site.device.lease import user_and_host

    control.cancel(Path(folder), cell_id, user_and_host())
