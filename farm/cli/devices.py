"""Commands about devices."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show
from farm.cli.group import Commands
from farm.core.errors import ConfigError

#: A glance: whatever is silent for this long is shown as that, seconds.
LOOK_S = 1.0

app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    help="Devices of the inventory: state, facts, what to do.",
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
    save: Annotated[
        Path | None, typer.Option(help="Also write what was found as an inventory, to a new file.")
    ] = None,
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
    if save is not None:
        from farm.commands import init

        init.save(save, found)
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
    from farm.core.names import meant
    from farm.transports import ssh

    entries = {e.name: e for e in load_inventory(inventory).entries if e.transport == "ssh"}
    if name not in entries:
        known = tuple(entries)
        raise UnknownName(
            f"no ssh device {name!r}; the inventory has {', '.join(known) or 'none'}"
            f"{meant(name, known)}",
            known=known,
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


@app.command("hold")
def hold(
    name: o.DeviceName,
    reason: Annotated[str, typer.Option(help="Why; everybody who waits for it reads this.")],
    for_: Annotated[str, typer.Option("--for", metavar="DURATION", help="2h, 90min, 1d.")] = "1h",
    wait: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Wait so long for it: a run that has it lets go after the job that it does.",
        ),
    ] = None,
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Take a device for yourself: runs wait for it, and say who has it and why.

    Example: `farm devices hold pixel8 --for 2h --reason "new battery" --wait 30min`
    """
    seconds, wait_s = _duration(for_), _duration(wait) if wait else 0.0
    o.enter(cluster, token)
    from farm import codec
    from farm.commands.everywhere import work_on
    from farm.commands.hold import hold_device
    from farm.paths import farm_home
    from farm.planning.reach import WORK_S
    from farm.site.device.lease import user_and_host

    words = (seconds, reason, user_and_host(), wait_s)
    limit_s = WORK_S + wait_s
    held = work_on(cluster, name, inventory, farm_home(), hold_device, *words, limit_s=limit_s)
    text = f"{name} is {held.text}; give it back with: farm devices release {name}"
    show.told({"device": name, "hold": codec.to_data(held)}, text, as_json=as_json)
    return 0


@app.command("release")
def release(
    name: o.DeviceName,
    from_: Annotated[
        str | None, typer.Option("--from", help="End the lease or hold of this owner instead.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also when it is another person's; that is recorded.")
    ] = False,
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Give a device back before its hold ends.

    Example: `farm devices release pixel8`
    """
    o.enter(cluster, token)
    from farm import codec
    from farm.commands.everywhere import work_on
    from farm.commands.hold import release_device
    from farm.paths import farm_home
    from farm.site.device.lease import user_and_host

    before = work_on(
        cluster, name, inventory, farm_home(), release_device, from_, user_and_host(), force
    )
    was = f"it was {before.text}" if before is not None else "nobody had it"
    data = {"device": name, "was": None if before is None else codec.to_data(before)}
    show.told(data, f"{name} is free; {was}", as_json=as_json)
    return 0


@app.command("shell")
def shell(
    name: o.DeviceName,
    command: Annotated[
        list[str] | None, typer.Argument(help="Run this there instead, after `--`.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Longest time of COMMAND, seconds.", min=1)] = 60.0,
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
) -> int:
    """Hold a device and open a shell on it (adb shell, ssh); given back at the end.

    With COMMAND that one program runs, on a device of any site too; its output is shown as text,
    and its exit code is ours. `sh -c '...'` for more than one.
    Example: `farm devices shell pi5 --inventory lab.yaml -- uname -a`
    """
    if cluster != "none" and not command:
        raise ConfigError(
            f"a shell needs the terminal of the device's own host: `farm devices shell {name}`"
            f" there; or give one command: farm devices shell {name} --cluster {cluster} -- WORDS"
        )
    o.enter(cluster, token)
    from farm.commands import hold as hold_command
    from farm.paths import farm_home

    if command:
        from farm.commands.everywhere import work_on
        from farm.core.printable import printable
        from farm.planning.reach import WORK_S
        from farm.site.device.lease import user_and_host

        words = (tuple(command), user_and_host(), timeout)
        run, limit_s = hold_command.run_command, WORK_S + timeout
        done = work_on(cluster, name, inventory, farm_home(), run, *words, limit_s=limit_s)
        sys.stdout.write(printable(done.text))
        sys.stderr.write(printable(done.stderr.decode("utf-8", "replace")))
        return done.exit_code
    with hold_command.connected(name, inventory, farm_home()) as connection:
        code = hold_command.open_shell(connection)
    return 0 if code != 255 else 3


@app.command("check")
def check(
    name: o.DeviceName,
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
            found = check_device.counts(findings)
            show.print_text(", ".join(f"{count} {state}" for state, count in found.items()))
    return 3 if any(finding.state == "fails" for finding in findings) else 0


@app.command("pair")
def pair(
    place: Annotated[
        str | None, typer.Argument(metavar="HOST:PORT", help="As the phone shows it with its code.")
    ] = None,
    code: Annotated[
        str | None, typer.Argument(help="Its six digits; asked for when left out.")
    ] = None,
    as_json: o.Json = False,
) -> int:
    """Pair with a phone's wireless debugging; without HOST:PORT, list what phones announce.

    On the phone: Developer options, Wireless debugging, Pair device with pairing code. It needs
    adb of platform-tools 31 or later. Example: `farm devices pair 192.168.1.20:37123 123456`
    """
    from farm import codec
    from farm.transports import adb_pairing
    from farm.ui import tables

    if place is None:
        found = adb_pairing.announced()
        if as_json:
            show.print_json([codec.to_data(one) for one in found])
        elif found:
            rows = [(one.name, one.kind, one.address) for one in found]
            show.print_table(tables.plain(("name", "kind", "address"), rows))
        else:
            show.print_text("no phone announces itself: turn on its wireless debugging")
        return 0
    code = code or typer.prompt("Code that the phone shows", hide_input=True)
    answer = adb_pairing.pair(place, code)
    if as_json:
        show.print_json({"paired": place, "answer": answer})
    else:
        show.print_text(f"{answer}; `farm devices` shows the phone once it announces itself")
    return 0


@app.command("prepare")
def prepare(
    name: o.DeviceName,
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
