"""Commands that ship what passed: deploy, deployments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import names, show
from farm.cli import options as o
from farm.cli.group import Commands

if TYPE_CHECKING:  # keeps `farm --help` quick
    from farm.core.deployment import Stages
    from farm.core.device import Device
    from farm.core.rules.rollout import OnFailure
    from farm.deploy.changes import Changed
    from farm.deploy.past import Known
    from farm.deploy.work import Ended
    from farm.planning.reach import Reach

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="What is deployed where: status, history, rollback, remove.",
)

To = Annotated[
    str, typer.Option("--to", help="Devices, as a selector: 'transport=adb', 'ring=canary'.")
]
Name = Annotated[str, typer.Argument(help="Name of the deployment, as `status` shows it.")]


def deploy(
    run: Annotated[
        str | None,
        typer.Argument(
            help="Run id, `latest` or folder: what is shipped; a config only with --unverified.",
            autocompletion=names.runs,
        ),
    ] = None,
    cells: Annotated[
        list[str] | None,
        typer.Argument(
            help="Cell ids or globs; default: whatever passed.", autocompletion=names.cells
        ),
    ] = None,
    to: To = "",
    inventory: o.InventoryFile = None,
    out: o.Out = o.RUNS,
    name: Annotated[str, typer.Option(help="Name on the devices. Default: the model's.")] = "",
    stages: Annotated[
        str, typer.Option(help="Devices that each stage adds up to, such as 1,10%,100%.")
    ] = "100%",
    wait: Annotated[
        str, typer.Option(metavar="DURATION", help="Between a stage's switch and its check: 10min.")
    ] = "",
    on_failure: Annotated[
        str, typer.Option(help="What becomes of a stage that fails: `rollback` or `stop`.")
    ] = "rollback",
    keep: Annotated[int, typer.Option(min=1, help="Versions that stay on each device.")] = 2,
    unverified: Annotated[
        bool,
        typer.Option("--unverified", help="Also what didn't pass for a device; that is recorded."),
    ] = False,
    service: Annotated[
        bool,
        typer.Option("--service", help="Keep it loaded behind a socket, from boot on (systemd)."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan; no device is changed.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with a deployment that was killed: its id, or `latest`."),
    ] = None,
    back: Annotated[
        bool, typer.Option("--back", help="With --resume: undo all that it switched.")
    ] = False,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Ship what passed to devices: copy, smoke check, switch, in stages, with a way back.

    Each stage copies to its devices and checks them (canary, the validated answer), switches them
    in one step each, waits, and checks again. A stage that fails is undone. Exit codes: 0 every
    device has it; 1 a check failed, the stage was undone or stopped; 3 a device was left out or
    couldn't be put back.

    Example: `farm deploy latest --to 'ring=canary' --stages 1,100% --wait 10min`
    """
    o.enter(cluster, token)
    from farm import codec
    from farm.core.errors import ConfigError
    from farm.deploy import begin, work
    from farm.paths import farm_home
    from farm.planning.reach import reaching
    from farm.ui import deploy as ui

    home = farm_home()

    def say(device: str, text: str) -> None:
        show.say(f"{device}: {text}" if device else text)

    if resume is not None:
        if run is not None:
            raise ConfigError("--resume goes on with its own plan: leave RUN out")
        with reaching(cluster, home) as reach:
            ended = work.resume(resume, home, say, reach, back=back)
        return _shown(ended, as_json=as_json)
    if back:
        raise ConfigError("--back undoes a deployment: name it with --resume")
    if run is None or not to:
        raise ConfigError("name a RUN, and the devices with --to SELECTOR; `--to ''` isn't all")
    request = begin.DeployRequest(
        run=run,
        to=to,
        cells=tuple(cells or ()),
        out=out,
        inventory=inventory,
        name=_plain_name(name),
        stages=_stages(stages),
        wait_s=_wait_s(wait),
        on_failure=_on_failure(on_failure),
        keep=keep,
        unverified=unverified,
        service=service,
    )
    with reaching(cluster, home) as reach:
        planned = begin.plan(request, home, reach)
        if dry_run and as_json:
            show.print_json(codec.to_data(planned))
        elif dry_run or not as_json:
            show.print_table(ui.plan_table(planned))
            show.print_text(ui.plan_line(planned))
        if dry_run:
            return 3 if planned.left_out else 0
        ended = work.begin(planned.saved, home, say, reach)
    return _shown(ended, as_json=as_json)


@app.command("status")
def status(
    to: To = "",
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Ask devices what is in use there, since when and from which run; every byte is hashed.

    A changed or missing file is drift, and so is a device that can't be asked: exit code 3.
    Example: `farm deployments status --to 'ring=canary'`
    """
    o.enter(cluster, token)
    from farm import codec
    from farm.deploy import fleet, past
    from farm.paths import farm_home
    from farm.planning.reach import reaching
    from farm.ui import deploy as ui

    known = past.known(farm_home())
    with reaching(cluster, farm_home()) as reach:
        found = fleet.status(_devices(reach, to, inventory), known, reach)
    if as_json:
        show.print_json([codec.to_data(one) for one in found])
    else:
        show.print_table(ui.status_table(found))
    alarms = ui.status_alarms(found)
    for alarm in alarms:
        show.say(f"ALARM {alarm}")
    unread = _unread(known)
    code = 3 if alarms or unread else 0
    if not as_json:
        line = ui.status_line(found, len(known.damage))
        show.print_text(f"{line} -> exit {code}")
    return code


@app.command("history")
def history(
    name: Annotated[str, typer.Argument(help="Only this name.")] = "",
    as_json: o.Json = False,
) -> int:
    """Show what this host put in use, took back or removed, and by whom; oldest first.

    What can't be read of its journals is named, with exit code 3.
    """
    from farm import codec
    from farm.deploy import past
    from farm.paths import farm_home
    from farm.ui import deploy as ui

    known = past.known(farm_home())
    found = [change for change in known.changes if name in ("", change.name)]
    if as_json:
        show.print_json([codec.to_data(change) for change in found])
    else:
        show.print_table(ui.history_table(found))
    return 3 if _unread(known) else 0


@app.command("rollback")
def rollback(
    name: Name,
    to: To = "",
    version: Annotated[
        str, typer.Option(help="A version on the device. Default: the one before the one in use.")
    ] = "",
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Put an older version in use, after every byte of it was hashed.

    Example: `farm deployments rollback smollm2 --to 'ring=canary'`
    """
    _needs(to)
    o.enter(cluster, token)
    from farm.deploy import changes
    from farm.paths import farm_home
    from farm.planning.reach import reaching

    with reaching(cluster, farm_home()) as reach:
        devices = _devices(reach, to, inventory)
        done = changes.rollback(devices, name, version, farm_home(), reach)
    return _changes(done, as_json=as_json)


@app.command("remove")
def remove(
    name: Name,
    to: To = "",
    version: Annotated[str, typer.Option(help="A version that isn't in use.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Every version, the one in use too.")
    ] = False,
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Remove a version from devices, or with --all the whole deployment.

    Example: `farm deployments remove smollm2 --version 1f2e3d4c5b6a --to 'name=pixel8'`
    """
    from farm.core.errors import ConfigError

    _needs(to)
    if bool(version) is everything:
        raise ConfigError("name a --version, or give --all")
    o.enter(cluster, token)
    from farm.deploy import changes
    from farm.paths import farm_home
    from farm.planning.reach import reaching

    with reaching(cluster, farm_home()) as reach:
        devices = _devices(reach, to, inventory)
        done = changes.remove(devices, name, version, farm_home(), reach, everything=everything)
    return _changes(done, as_json=as_json)


def _unread(known: Known) -> bool:
    """Say what of this host's journals couldn't be read; return whether that is an alarm."""
    for damage in known.damage:
        show.say(f"ALARM {damage}: what it says is missing here")
    for foreign in known.foreign:
        show.say(f"{foreign}: its deployment is missing here")
    return bool(known.damage)


def _shown(ended: Ended, *, as_json: bool) -> int:
    from farm import codec
    from farm.ui import deploy as ui

    code = ui.exit_code(ended)
    if as_json:
        show.print_json({**codec.to_data(ended.finished), **ui.summary(ended), "exit_code": code})
    else:
        show.print_table(ui.outcome_table(ended))
        show.print_text(f"{ui.last_line(ended)} -> exit {code}")
    return code


def _changes(done: tuple[Changed, ...], *, as_json: bool) -> int:
    from farm import codec
    from farm.ui import deploy as ui

    if as_json:
        show.print_json([codec.to_data(one) for one in done])
    else:
        show.print_table(ui.changed_table(done))
    return 3 if any(one.failure for one in done) else 0


def _devices(reach: Reach, select: str, inventory: Path | None) -> tuple[Device, ...]:
    from farm.config.load import load_inventory
    from farm.core.errors import ConfigError

    found = reach.look(load_inventory(inventory), select)
    if not found:
        raise ConfigError(f"no device matches {select or '(all)'!r}; `farm devices` shows them")
    return found


def _needs(to: str) -> None:
    from farm.core.errors import ConfigError

    if not to:
        raise ConfigError("name the devices with --to SELECTOR, such as --to 'name=pixel8'")


def _stages(text: str) -> Stages:
    from farm.core.deployment import parse_stages
    from farm.core.errors import ConfigError

    try:
        return parse_stages(text)
    except ValueError as error:
        raise ConfigError(f"--stages {error}") from None


def _wait_s(text: str) -> float:
    from farm.core.durations import parse_duration
    from farm.core.errors import ConfigError

    try:
        return parse_duration(text) if text else 0.0
    except ValueError as error:
        raise ConfigError(f"--wait {error}") from None


def _on_failure(text: str) -> OnFailure:
    from farm.core.errors import ConfigError

    if text == "rollback":
        return "rollback"
    if text == "stop":
        return "stop"
    raise ConfigError(f"--on-failure {text!r}: write rollback or stop")


def _plain_name(name: str) -> str:
    import re

    from farm.core.errors import ConfigError

    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", name):
        raise ConfigError(f"--name {name!r}: write up to 60 letters, digits and ._-")
    return name
