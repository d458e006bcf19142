"""Options that several commands share, each with the help that teaches it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Argument(help="Run config (YAML); examples are in configs/.")]
InventoryFile = Annotated[
    Path | None,
    typer.Option(
        "--inventory",
        "-i",
        help="Inventory (YAML). Default: every adb device attached, and this machine.",
        envvar="FARM_INVENTORY",
    ),
]
Select = Annotated[
    str, typer.Option(help="Only devices that match, e.g. 'transport=adb, ram>=6GiB'.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a config key, e.g. --set 'workload.decode=[32]'."),
]
Cluster = Annotated[
    str,
    typer.Option(
        help="`local`: a Ray runtime of our own; `none`: in this process; else the address of "
        "a running Ray cluster."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder that run folders are made in.")]
Live = Annotated[
    str, typer.Option(help="Live view: `auto` (on a terminal), `on` or `off` (plain lines).")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Least work that shows every step; numbers are rough.")
]
