"""The commands about a run that goes on: watch, cancel."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show

Cell = Annotated[str | None, typer.Argument(help="A cell of it, as the report names it.")]


def watch(
    run: o.Run = "latest",
    out: o.Out = o.RUNS,
    live: o.Live = "auto",
    cluster: o.OnCluster = "none",
    token: o.Token = None,
) -> int:
    """Show a run that goes on in another terminal; Ctrl-C ends the watching, not the run.

    With --cluster it may go on at any host of that cluster; RUN is its id then.
    Example: `farm watch`, or over ssh on the host of the run: `farm watch --live on`
    """
    o.enter(cluster, token)
    from farm.core.view import RunEnded
    from farm.run import control, run_folder
    from farm.site.device.lease import user_and_host

    ended: RunEnded | None = None
    if cluster == "none":
        folder = run_folder.find(run, out)
        events, again = control.watch(folder), f"`farm run --resume {folder}` goes on"

        def end(_folder: str, cell_id: str) -> None:
            control.cancel(folder, cell_id, user_and_host())
    else:
        from farm.commands import following

        events, again = following.watch(cluster, run), "its host can go on with it"

        def end(_folder: str, cell_id: str) -> None:
            following.end(run, cell_id, user_and_host())

    with show.watching(live, as_json=False, cancel=end) as emit:
        for event in events:
            emit(event)
            if isinstance(event, RunEnded):
                ended = event
    if ended is None:
        show.print_text(f"the run ended without a report; {again}")
        return 3
    show.print_text(ended.line)
    return ended.exit_code


def cancel(
    run: o.Run = "latest",
    cell: Cell = None,
    out: o.Out = o.RUNS,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """End a run that goes on, as Ctrl-C in its terminal does: in order, with its report.

    With CELL only that cell ends, as skipped (`cancelled`), and its device takes the next one.
    Example: `farm cancel latest`; `farm run --resume latest` goes on with it.
    One cell: `farm cancel latest smollm2-135m/xnnpack-8da4w:executorch:auto:pixel8`
    """
    o.enter(cluster, token)
    from farm.run import control, run_folder
    from farm.site.device.lease import user_and_host

    by, what = user_and_host(), cell or ""
    if cluster == "none":
        folder = run_folder.find(run, out)
        control.cancel(folder, what, by)
        name, then = folder.name, f"it writes its report in {folder}"
    else:
        from farm.commands import following

        name, then = following.cancel(cluster, run, what, by), "its host writes the report"
    if as_json:
        show.print_json({"run_id": name, "cell_id": cell, "told": True})
    elif cell is None:
        show.print_text(f"{name} is told to end; {then}")
    else:
        show.print_text(f"{cell} of {name} is told to end; the run goes on")
    return 0
