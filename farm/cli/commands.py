"""The table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.cli import (
    bundling,
    chatting,
    cluster,
    deploying,
    devices,
    investigating,
    look,
    models,
    nightly,
    profiling,
    quarantine,
    recipes,
    running,
    simulating,
    store,
    watching,
)
from farm.cli.group import Commands

app = typer.Typer(
    name="farm",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Export LLMs with ExecuTorch, run them on your own devices, and say whether they are "
        "still right and how fast they are.\n\n"
        "Start with `farm doctor`, then `farm run configs/tiny.yaml`. A RUN is an id, `latest`, "
        "a folder or a bundle. Exit codes: 0 all judged cells passed; 1 a gate failed; 2 bad "
        "config or usage; 3 something could not be judged; 70 a defect of farm; 130 interrupted."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        from farm.core.version import VERSION

        typer.echo(f"farm {VERSION}")
        raise typer.Exit


@app.callback()
def _every(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    pass


app.command("init")(look.init)
app.command("run")(running.run)
app.command("watch")(watching.watch)
app.command("cancel")(watching.cancel)
app.command("rerun")(running.rerun)
app.command("plan")(running.plan)
app.command("sim")(simulating.sim)
app.command("export")(running.export)
app.command("bench")(running.bench)
app.command("profile")(profiling.profile)
app.command("nightly")(nightly.nightly)
app.add_typer(nightly.baseline_app, name="baseline")
app.add_typer(nightly.history_app, name="history")
app.command("report")(look.report)
app.command("compare")(look.compare)
app.command("bundle")(bundling.bundle)
app.command("deploy")(deploying.deploy)
app.add_typer(deploying.app, name="deployments")
app.command("chat")(chatting.chat)
app.command("bisect")(investigating.bisect)
app.command("compat")(investigating.compat)
app.command("diagnose")(investigating.diagnose)
app.command("repro")(investigating.repro)
app.add_typer(devices.app, name="devices")
app.add_typer(cluster.app, name="cluster")
app.add_typer(cluster.site_app, name="site")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(store.app, name="store")
app.command("runners")(look.runners)
app.add_typer(models.app, name="models")
app.add_typer(recipes.app, name="recipes")
app.command("doctor")(look.doctor)
app.command("schema")(look.schema)
