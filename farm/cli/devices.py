"""Commands about devices."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show

app = typer.Typer(
    invoke_without_command=True, help="Devices of the inventory: state, facts, what to do."
)


@app.callback()
def devices(
    context: typer.Context,
    inventory: o.InventoryFile = None,
    select: o.Select = "",
    as_json: o.Json = False,
) -> None:
    """Probe every device of the inventory and show it.

    Example: `farm devices --inventory lab.yaml --select 'transport=adb'`
    """
    if context.invoked_subcommand is not None:
        return
    import asyncio

    from farm import codec
    from farm.cluster.start import start
    from farm.config import load_inventory
    from farm.core.device import Device
    from farm.home import farm_home
    from farm.prepare import find_devices
    from farm.ui import tables

    async def look() -> tuple[Device, ...]:
        runtime = await start("none", farm_home())
        try:
            return await find_devices(runtime, load_inventory(inventory), select)
        finally:
            await runtime.close()

    found = asyncio.run(look())
    if as_json:
        show.print_json([codec.to_data(device) for device in found])
    else:
        show.print_table(tables.devices(found))


@app.command("trust")
def trust(
    name: Annotated[str, typer.Argument(help="An ssh device of the inventory.")],
    inventory: o.InventoryFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Record the key without asking.")] = False,
) -> int:
    """Show the host key of an ssh device and, once confirmed, record it.

    Example: `farm devices trust pi5 --inventory lab.yaml`
    """
    from farm.config import load_inventory
    from farm.core.errors import UnknownName
    from farm.transports import ssh

    entries = {e.name: e for e in load_inventory(inventory).entries if e.transport == "ssh"}
    if name not in entries:
        known = tuple(entries)
        raise UnknownName(
            f"no ssh device {name!r}; the inventory has {', '.join(known) or 'none'}", known=known
        )
    key = ssh.fingerprint(entries[name])
    show.print_text(f"{key.host} {key.algorithm} {key.fingerprint} ({key.standing})")
    if key.standing == "trusted":
        return 0
    if not yes and not typer.confirm("Is this the fingerprint that the device itself shows?"):
        show.print_text("nothing recorded")
        return 3
    ssh.trust(entries[name], key)
    show.print_text(f"recorded; {name} can be used now")
    return 0
