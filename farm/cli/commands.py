"""The table of commands. The one that is asked for is built: building all takes 0.1 s."""

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
from farm.cli.group import Part, Parts

PARTS: dict[str, Part] = {
    "init": look.init,
    "run": running.run,
    "watch": watching.watch,
    "cancel": watching.cancel,
    "rerun": running.rerun,
    "plan": running.plan,
    "sim": simulating.sim,
    "export": running.export,
    "bench": running.bench,
    "profile": profiling.profile,
    "nightly": nightly.nightly,
    "baseline": nightly.baseline_app,
    "history": nightly.history_app,
    "report": look.report,
    "compare": look.compare,
    "bundle": bundling.bundle,
    "deploy": deploying.deploy,
    "deployments": deploying.app,
    "chat": chatting.chat,
    "bisect": investigating.bisect,
    "compat": investigating.compat,
    "diagnose": investigating.diagnose,
    "repro": investigating.repro,
    "devices": devices.app,
    "cluster": cluster.app,
    "site": cluster.site_app,
    "quarantine": quarantine.app,
    "store": store.app,
    "runners": look.runners,
    "models": models.app,
    "recipes": recipes.app,
    "doctor": look.doctor,
    "schema": look.schema,
}


class _Farm(Parts):
    parts = PARTS


app = typer.Typer(
    name="farm",
    cls=_Farm,
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
