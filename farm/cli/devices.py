"""Commands about devices."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show

#: A glance: whatever is silent for this long is shown as that, seconds.
LOOK_S = 1.0

app = typer.Typer(
    invoke_without_command=True, help="Devices of the inventory: state, facts, what to do."
)


@app.callback()
def devices(
    context: typer.Context,
    inventory: o.InventoryFile = None,
    select: o.Select = "",
    wait: Annotated[
        float, typer.Option(help="Seconds that a silent device may take.", min=0.1)
    ] = LOOK_S,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> None:
    """Probe every device of the inventory: state and why, who has it, how warm, what to do.

    Example: `farm devices --inventory lab.yaml --select 'transport=adb'`
    """
    if context.invoked_subcommand is not None:
        return
    o.enter(cluster, token)
    from farm import codec
    from farm.commands import everywhere
    from farm.config.load import load_inventory
    from farm.paths import farm_home

    entries = load_inventory(inventory)
    if not as_json:
        # A tenth of a second to load, which fits into the wait for the slowest device.
        load = threading.Thread(
            target=importlib.import_module, args=("farm.ui.devices",), daemon=True
        )
        load.start()
    found = everywhere.look(cluster, entries, select, farm_home(), wait)
    if as_json:
        show.print_json([codec.to_data(device) for device in found])
    else:
        from farm.ui.devices import devices as table

        show.print_table(table(found))


@app.command("trust")
def trust(
    name: Annotated[str, typer.Argument(help="An ssh device of the inventory.")],
    inventory: o.InventoryFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Record the key without asking.")] = False,
) -> int:
    """Show the host key of an ssh device, and of jump hosts before it; record what is confirmed.

    Example: `farm devices trust pi5 --inventory lab.yaml`
    """
    from farm.config.load import load_inventory
    from farm.core.errors import UnknownName
    from farm.transports import ssh

    entries = {e.name: e for e in load_inventory(inventory).entries if e.transport == "ssh"}
    if name not in entries:
        known = tuple(entries)
        raise UnknownName(
            f"no ssh device {name!r}; the inventory has {', '.join(known) or 'none'}", known=known
        )
    for place in ssh.route(entries[name]):
        # A jump host comes first: nothing behind it can be asked before it is trusted.
        key = ssh.fingerprint(entries[name], place)
        show.print_text(f"{key.host} {key.algorithm} {key.fingerprint} ({key.standing})")
        if key.standing == "trusted":
            continue
        if not yes and not typer.confirm("Is this the fingerprint that the host itself shows?"):
            show.print_text("nothing recorded")
            return 3
        ssh.trust(entries[name], key)
        show.print_text(f"recorded; {place} can be used now")
    return 0


def _duration(text: str) -> float:
    from farm.core.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


DeviceName = Annotated[str, typer.Argument(help="Name of the device, as `farm devices` shows it.")]


@app.command("hold")
def hold(
    name: DeviceName,
    reason: Annotated[str, typer.Option(help="Why; everybody who waits for it reads this.")],
    for_: Annotated[str, typer.Option("--for", metavar="DURATION", help="2h, 90min, 1d.")] = "1h",
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
) -> int:
    """Take a device for yourself: runs wait for it, and say who has it and why.

    Example: `farm devices hold pixel8 --for 2h --reason "new battery"`
    """
    seconds = _duration(for_)
    o.enter(cluster, token)
    from farm.commands.everywhere import work_on
    from farm.commands.hold import hold_device
    from farm.paths import farm_home
    from farm.site.device.lease import user_and_host

    held = work_on(
        cluster, name, inventory, farm_home(), hold_device, seconds, reason, user_and_host()
    )
    show.print_text(f"{name} is {held.text}; give it back with: farm devices release {name}")
    return 0


@app.command("release")
def release(
    name: DeviceName,
    from_: Annotated[
        str | None, typer.Option("--from", help="End the lease or hold of this owner instead.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also when it is another person's; that is recorded.")
    ] = False,
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
) -> int:
    """Give a device back before its hold ends.

    Example: `farm devices release pixel8`
    """
    o.enter(cluster, token)
    from farm.commands.everywhere import work_on
    from farm.commands.hold import release_device
    from farm.paths import farm_home
    from farm.site.device.lease import user_and_host

    before = work_on(
        cluster, name, inventory, farm_home(), release_device, from_, user_and_host(), force
    )
    was = f"it was {before.text}" if before is not None else "nobody had it"
    show.print_text(f"{name} is free; {was}")
    return 0


@app.command("shell")
def shell(name: DeviceName, inventory: o.InventoryFile = None) -> int:
    """Hold a device of this host and open a shell on it (adb shell, ssh); given back at the end.

    Example: `farm devices shell pi5 --inventory lab.yaml`
    """
    from farm.commands import hold as hold_command
    from farm.paths import farm_home

    with hold_command.connected(name, inventory, farm_home()) as connection:
        code = hold_command.open_shell(connection)
    return 0 if code != 255 else 3


@app.command("check")
def check(
    name: DeviceName,
    inventory: o.InventoryFile = None,
    soak: Annotated[
        float, typer.Option(help="Seconds that all cores compute, to see clocks and heat.", min=1)
    ] = 10.0,
    pte: Annotated[
        Path | None, typer.Option(help="A small .pte to run there; without one none is run.")
    ] = None,
    as_json: o.Json = False,
) -> int:
    """Try all that farm asks of a device: what works, what is blind, what that means for trust.

    The JSON has no serial numbers, hosts or names: attach it to an issue.
    Example: `farm devices check pixel8 --json > pixel8.json`
    """
    from farm.commands import check_device, hold
    from farm.paths import farm_home
    from farm.ui import tables

    home = farm_home()
    with hold.connected(name, inventory, home) as connection:
        findings, identity = check_device.check(connection, soak)
        findings.append(check_device.check_model(name, inventory, pte, home))
        if as_json:
            show.print_json(check_device.to_data(findings, connection, identity))
        else:
            rows = [(f.area, f.name, f.state, f.detail, f.means) for f in findings]
            show.print_table(tables.plain(("area", "piece", "state", "seen", "means"), rows))
    return 3 if any(finding.state == "fails" for finding in findings) else 0


@app.command("prepare")
def prepare(
    name: DeviceName,
    undo: Annotated[bool, typer.Option("--undo", help="Put every old value back.")] = False,
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Make a device quiet: awake, no doze, dim, no animations; a board: performance governor.

    Shows every setting's old and new value; needs no root on Android. The old values are kept
    in FARM_HOME. Example: `farm devices prepare pixel8`, later `farm devices prepare pixel8 --undo`
    """
    o.enter(cluster, token)
    from farm import codec
    from farm.commands.everywhere import work_on
    from farm.commands.quieten import change_device
    from farm.paths import farm_home
    from farm.site.device.lease import user_and_host
    from farm.ui import tables

    changes = work_on(cluster, name, inventory, farm_home(), change_device, undo, user_and_host())
    refused = [change for change in changes if change.problem]
    if as_json:
        show.print_json([codec.to_data(change) for change in changes])
    else:
        rows = [(c.name, c.old or "?", c.new or "?", c.problem) for c in changes]
        show.print_table(tables.plain(("setting", "was", "is", "problem"), rows))
        if not undo:
            show.print_text(f"put it back with: farm devices prepare {name} --undo")
    return 3 if refused else 0
