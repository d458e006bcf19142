"""The command that packs a run for others: bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show


def bundle(
    run: o.Run = "latest",
    to: Annotated[
        Path | None, typer.Option(help="File to write. Default: RUN.farm.zip, here.")
    ] = None,
    with_artifacts: Annotated[
        bool,
        typer.Option("--with-artifacts", help="Also what passed: `farm deploy FILE` ships it."),
    ] = False,
    out: o.Out = o.RUNS,
    as_json: o.Json = False,
) -> int:
    """Pack a run into one file: report, samples, provenance, hashes, and with them what passed.

    Every command that takes a RUN takes the file too, and refuses one of which a byte changed;
    `farm run FILE` runs its config again. It names devices, and doesn't say how to reach them.
    Example: `farm bundle latest --with-artifacts`, then `farm compare FILE latest` elsewhere
    """
    from farm import codec
    from farm.commands import bundle as command
    from farm.paths import farm_home
    from farm.run import run_folder

    folder = run_folder.find(run, out)
    made = command.write(folder, to, farm_home(), with_artifacts=with_artifacts)
    if as_json:
        show.print_json(codec.to_data(made))
        return 0
    for line in made.left_out:
        show.say(f"not in it: {line}")
    show.print_text(f"{made.path}: {made.size_bytes} bytes, sha256 {made.sha256}")
    return 0
