"""Options that several commands share, each with the help that teaches it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farm.cli import names
from farm.core.errors import ConfigError

#: A run of before.
Run = Annotated[
    str,
    typer.Argument(help="Run id, `latest`, folder or bundle.", autocompletion=names.runs),
]
Cell = Annotated[
    str, typer.Argument(help="Cell id, as the report has it.", autocompletion=names.cells)
]
DeviceName = Annotated[
    str,
    typer.Argument(
        help="Name of the device, as `farm devices` shows it.", autocompletion=names.devices
    ),
]
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
        help="`local`: a Ray runtime of our own; `none`: in this process; else the address that "
        "`farm cluster up` printed."
    ),
]
#: Of a command that starts no runtime of its own.
OnCluster = Annotated[
    str, typer.Option(help="Address that `farm cluster up` printed: its sites' devices too.")
]
Token = Annotated[
    Path | None,
    typer.Option(
        help="File with the cluster's token. Default: $FARM_CLUSTER_TOKEN, else FARM_HOME's own."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder that run folders are made in.")]
#: Where run folders are made unless `--out` names another place.
RUNS = Path("runs")
Live = Annotated[
    str, typer.Option(help="Live view: `auto` (on a terminal), `on` or `off` (plain lines).")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Least work that shows every step; numbers are rough.")
]


def enter(cluster: str, token: Path | None) -> None:
    """Prepare this process for a cluster that is up; see `farm.cluster.start.enter`."""
    if cluster not in ("local", "none") or token is not None:
        from farm.cluster.start import enter
        from farm.paths import farm_home

        enter(cluster, token, farm_home())


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Read a list such as `128,512`, each number once.

    Raises:
        ConfigError: It is none.
    """
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        found = (-1,)
    if min(found) < 0:
        raise ConfigError(f"{option} {text!r}: write whole numbers, for example {option} 128,512")
    return found


def percentage(option: str, text: str) -> float:
    """Read a percentage above zero, such as `2%`, as a fraction.

    Raises:
        ConfigError: It is none.
    """
    found = share(option, text)
    if not found:
        raise ConfigError(f"{option} {text!r}: write more than 0% and at most 100%")
    return found


def share(option: str, text: str) -> float:
    """Read a percentage from 0% to 100% as a fraction.

    Raises:
        ConfigError: It is none.
    """
    from farm.config import quantities

    try:
        found = quantities.share(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
    if not 0 <= found <= 1:
        raise ConfigError(f"{option} {text!r}: write more than 0% and at most 100%")
    return found
