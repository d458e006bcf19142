"""farm quarantine: devices that get no work, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show

app = typer.Typer(
    no_args_is_help=True, help="Devices that get no work until they are released, and why."
)


@app.command("list")
def list_(as_json: o.Json = False) -> None:
    """Show the devices in quarantine: since when, by whom, and what releases them."""
    from farm import codec
    from farm.paths import farm_home, quarantine_file
    from farm.state.health_book import HealthBook
    from farm.ui import tables

    found = HealthBook(quarantine_file(farm_home())).quarantined()
    if as_json:
        show.print_json([codec.to_data(health) for health in found])
        return
    rows = [
        (
            health.name,
            q.since,
            q.by,
            "a probe after its cooldown" if q.until_probe else "farm quarantine release",
            q.reason,
        )
        for health in found
        if (q := health.quarantine) is not None
    ]
    show.print_table(tables.plain(("device", "since", "by", "released by", "reason"), rows))


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name of the device, as `farm devices` shows it.")],
    reason: Annotated[str, typer.Option(help="Why; reports say it for every cell left out.")],
) -> int:
    """Put a device into quarantine until somebody releases it.

    Example: `farm quarantine add pixel8 --reason "swollen battery"`
    """
    from farm.paths import farm_home, quarantine_file
    from farm.site.device.lease import user_and_host
    from farm.state.health_book import HealthBook

    by = user_and_host()
    HealthBook(quarantine_file(farm_home())).add(name, reason, by)
    show.print_text(f"{name} gets no work; release it with: farm quarantine release {name}")
    return 0


@app.command("release")
def release(name: Annotated[str, typer.Argument(help="A device in quarantine.")]) -> int:
    """Let a device work again; its failures are counted anew."""
    from farm.paths import farm_home, quarantine_file
    from farm.state.health_book import HealthBook

    was = HealthBook(quarantine_file(farm_home())).release(name)
    show.print_text(f"{name} may work again; it was in quarantine since {was.since}: {was.reason}")
    return 0
