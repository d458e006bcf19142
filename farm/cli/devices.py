"""Commands about devices."""

from __future__ import annotations

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
