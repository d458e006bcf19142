"""farm quarantine: devices that get no work, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show
from farm.cli.group import Commands
from farm.core.errors import FarmError

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Devices that get no work until they are released, and why.",
)


@app.command("list")
def list_(cluster: o.OnCluster = "none", token: o.Token = None, as_json: o.Json = False) -> int:
    """Show the devices in quarantine: since when, by whom, and what releases them.

    With --cluster those of its sites too. Exit code 3 when one could not be asked.
    """
    o.enter(cluster, token)
    from farm import codec
    from farm.commands import quarantine
    from farm.paths import farm_home
    from farm.ui import tables

    books, failed = quarantine.read_books(cluster, farm_home())
    if as_json:
        show.print_json(
            [codec.to_data(h) | {"host": book.host} for book in books for h in book.quarantined]
        )
        return _told(failed)
    rows = [
        (
            health.name,
            q.since,
            q.by,
            "a probe after its cooldown" if q.until_probe else "farm quarantine release",
            q.reason,
            book.host,
        )
        for book in books
        for health in book.quarantined
        if (q := health.quarantine) is not None
    ]
    headers = ("device", "since", "by", "released by", "reason", "kept on")
    show.print_table(tables.plain(headers, rows))
    return _told(failed)


@app.command("add")
def add(
    name: o.DeviceName,
    reason: Annotated[str, typer.Option(help="Why; reports say it for every cell left out.")],
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Put a device into quarantine until somebody releases it.

    With --cluster a device of a site, for the runs of every host.
    Example: `farm quarantine add pixel8 --reason "swollen battery"`
    """
    o.enter(cluster, token)
    from farm.commands import quarantine
    from farm.paths import farm_home
    from farm.site.device.lease import user_and_host

    by = user_and_host()
    quarantine.add(cluster, name, inventory, farm_home(), reason, by)
    on = "" if cluster == "none" else f" --cluster {cluster}"
    text = f"{name} gets no work; release it with: farm quarantine release {name}{on}"
    show.told({"device": name, "reason": reason, "by": by}, text, as_json=as_json)
    return 0


@app.command("release")
def release(
    name: Annotated[str, typer.Argument(help="A device in quarantine.")],
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Let a device work again; its failures are counted anew."""
    o.enter(cluster, token)
    from farm import codec
    from farm.commands import quarantine
    from farm.paths import farm_home

    was, failed = quarantine.release(cluster, name, farm_home())
    text = f"{name} may work again; it was in quarantine since {was.since}: {was.reason}"
    show.told({"device": name, "was": codec.to_data(was)}, text, as_json=as_json)
    return _told(failed)


def _told(failed: Mapping[str, FarmError]) -> int:
    """Name the sites that were not asked; returns the exit code."""
    for site, error in failed.items():
        show.say(f"farm: site {site} was not asked: {error.message}")
    return 3 if failed else 0
