"""The commands about a run that goes on: watch, cancel."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show

Run = Annotated[str, typer.Argument(help="Id of a run, `latest` or its folder.")]


def watch(run: Run = "latest", out: o.Out = o.RUNS, live: o.Live = "auto") -> int:
    """Show a run that goes on in another terminal; Ctrl-C ends the watching, not the run.

    Example: `farm watch`, or over ssh on the host of the run: `farm watch --live on`
    """
    from farm.core.view import RunEnded
    from farm.run import control, run_folder

    ended: RunEnded | None = None
    folder = run_folder.find(run, out)
    with show.watching(live, as_json=False) as emit:
        for event in control.watch(folder):
            emit(event)
            if isinstance(event, RunEnded):
                ended = event
    if ended is None:
        show.print_text(f"the run ended without a report; `farm run --resume {folder}` goes on")
        return 3
    show.print_text(ended.line)
    return ended.exit_code


def cancel(run: Run = "latest", out: o.Out = o.RUNS) -> int:
    """End a run that goes on, as Ctrl-C in its terminal does: in order, with its report.

    Example: `farm cancel latest`; `farm run --resume latest` goes on with it
    """
    from farm.run import control, run_folder

    folder = run_folder.find(run, out)
    control.cancel(folder)
    show.print_text(f"{folder.name} is told to end; it writes its report in {folder}")
    return 0
