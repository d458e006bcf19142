"""The table of commands."""

from __future__ import annotations

import typer

from farm.cli import (
    cluster,
    devices,
    look,
    nightly,
    profiling,
    quarantine,
    running,
    simulating,
    store,
    watching,
)

app = typer.Typer(
    name="farm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Export LLMs with ExecuTorch, run them on your own devices, and say whether they are "
        "still right and how fast they are.\n\n"
        "Start with `farm doctor`, then `farm run configs/tiny.yaml`. A RUN is an id, `latest` "
        "or a folder. Exit codes: 0 all judged cells passed; 1 a gate failed; 2 bad config or "
        "usage; 3 something could not be judged; 70 a defect of farm; 130 interrupted."
    ),
)

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
app.add_typer(devices.app, name="devices")
app.add_typer(cluster.app, name="cluster")
app.add_typer(cluster.site_app, name="site")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(store.app, name="store")
app.command("runners")(look.runners)
app.command("models")(look.models)
app.command("recipes")(look.recipes)
app.command("doctor")(look.doctor)
app.command("schema")(look.schema)
