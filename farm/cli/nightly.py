"""Commands of release teams: nightly, baseline, history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as o
from farm.cli import show

if TYPE_CHECKING:
    from farm.run.baselines import Baseline

baseline_app = typer.Typer(
    no_args_is_help=True, help="Named baselines that later runs are compared with."
)
history_app = typer.Typer(invoke_without_command=True, help="Past runs of this host.")


def nightly(
    config: Annotated[
        Path | None, typer.Argument(help="Run config (YAML). None with --resume.")
    ] = None,
    inventory: o.InventoryFile = None,
    select: o.Select = "",
    set_: o.Set = None,
    cluster: o.Cluster = "local",
    token: o.Token = None,
    out: o.Out = o.RUNS,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a night that was killed or interrupted.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Baseline to compare with; default: the config's name.")
    ] = None,
    allow_no_baseline: Annotated[
        bool, typer.Option(help="Run although there is no baseline yet (the first night).")
    ] = False,
    webhook: Annotated[
        str,
        typer.Option(
            envvar="FARM_WEBHOOK",
            show_envvar=True,
            help="Post how it ended to this address, as Slack and those like it take it.",
        ),
    ] = "",
    mail: Annotated[
        Path | None,
        typer.Option(help="Write how it ended to this file: a subject, an empty line, the text."),
    ] = None,
    live: o.Live = "auto",
    as_json: o.Json = False,
) -> int:
    """Run a config and compare every gated metric with the baseline; one exit code.

    First night: `farm nightly CONFIG --allow-no-baseline`, then
    `farm baseline set latest NAME`.
    """
    o.enter(cluster, token)
    from farm.cli.running import watch
    from farm.commands.nightly import Told, nightly_options, told_night
    from farm.paths import farm_home
    from farm.planning.planning import RunOptions
    from farm.run import run_folder
    from farm.run.run import Finished

    options = RunOptions(
        config=config,
        inventory=inventory,
        select=select,
        overrides=tuple(set_ or ()),
        cluster=cluster,
        out=out,
        baseline=baseline,
    )

    def night() -> Finished:
        if resume is not None:  # its journal has the plan, its baseline and what it requires
            folder = run_folder.find(resume, out)
            return watch(options, live, as_json=as_json, folder=folder)
        chosen = nightly_options(options, farm_home(), allow_no_baseline=allow_no_baseline)
        return watch(chosen, live, as_json=as_json)

    finished = told_night(night, Told(webhook, mail), str(config or resume))
    return finished.report.exit_code


@baseline_app.command("set")
def baseline_set(
    run: Annotated[str, typer.Argument(help="Run id, `latest` or folder.")],
    name: Annotated[str, typer.Argument(help="Name, usually the config's.")],
    out: o.Out = o.RUNS,
) -> int:
    """Take a run's passed cells into the baseline of that name, without untrusted numbers.

    Cells that the run did not judge stay those of an earlier run.
    """
    from farm import paths
    from farm.reports.json import load_report
    from farm.run import baselines, run_folder

    report = load_report(run_folder.find(run, out) / run_folder.REPORT)
    change = baselines.set_baseline(paths.baselines(paths.farm_home()), name, report)
    taken = len(change.added) + len(change.replaced)
    show.print_text(f"baseline {name}: {taken} cells of run {report.run_id}")
    for cell in change.added:
        show.print_text(f"  added {cell}")
    for cell in change.replaced:
        show.print_text(f"  replaced {cell}")
    for cell, origin in change.kept.items():
        show.print_text(f"  kept {cell} of run {origin}")
    for cell, why in change.refused.items():
        show.print_text(f"  not taken {cell}: {why}")
    return 0


@baseline_app.command("export")
def baseline_export(
    name: Annotated[str, typer.Argument(help="Name of the baseline.")],
    to: Annotated[Path | None, typer.Option(help="File to write; default: stdout.")] = None,
) -> int:
    """Write a baseline as JSON for a repository; `--baseline FILE` takes it."""
    from farm.run import baselines, run_folder

    found = _baseline(name)
    text = baselines.export_text(found)
    if to is None:
        show.print_text(text.rstrip("\n"))
    else:
        run_folder.write_text(to, text)
        show.print_text(f"{to}: {len(found.report.results)} cells of baseline {name}")
    return 0


def _baseline(name: str) -> Baseline:
    from farm import paths
    from farm.core.errors import ConfigError
    from farm.run import baselines

    found = baselines.find_baseline(paths.baselines(paths.farm_home()), name)
    if found is None:
        raise ConfigError(f"no baseline {name!r}; `farm baseline list` shows those that exist")
    return found


@baseline_app.command("list")
def baseline_list(as_json: o.Json = False) -> int:
    """Show the baselines of this host."""
    from farm import paths
    from farm.run import baselines
    from farm.ui import tables

    found = baselines.list_baselines(paths.baselines(paths.farm_home()))
    rows = [
        (b.name, b.report.run_id, b.report.started_at, str(len(b.report.results))) for b in found
    ]
    if as_json:
        keys = ("name", "run_id", "started_at", "cells")
        show.print_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        show.print_table(tables.plain(("baseline", "run", "started", "cells"), rows))
    return 0


@baseline_app.command("show")
def baseline_show(name: Annotated[str, typer.Argument(help="Name of the baseline.")]) -> int:
    """Print a baseline's report as JSON."""
    from farm.reports import renderers

    show.print_text(renderers.render(_baseline(name).report, "json"))
    return 0


@history_app.callback()
def history(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="Only runs of this config name.")] = None,
    limit: Annotated[int, typer.Option(help="Newest runs to show.")] = 30,
    as_json: o.Json = False,
) -> None:
    """Show past runs of this host, newest first."""
    if context.invoked_subcommand is not None:
        return
    from farm import codec, paths
    from farm.state.history import History
    from farm.ui import tables

    index = History(paths.history_db(paths.farm_home()))
    runs = index.runs(name=name, limit=limit)
    index.close()
    if as_json:
        show.print_json([codec.to_data(run) for run in runs])
    else:
        rows = [(r.started_at, r.name, r.run_id, str(r.exit_code), r.verdict) for r in runs]
        show.print_table(tables.plain(("started", "config", "run", "exit", "verdict"), rows))


@history_app.command("show")
def history_show(
    cell: Annotated[str, typer.Argument(help="Glob on cell ids; default: all.")] = "",
    metric: Annotated[str, typer.Option(help="One metric, such as tg64.")] = "",
    name: Annotated[str | None, typer.Option(help="Only runs of this config name.")] = None,
    limit: Annotated[int, typer.Option(help="Newest runs to show.")] = 30,
    to: Annotated[
        Path | None, typer.Option(help="Write every row to a file: .csv, or .parquet (pyarrow).")
    ] = None,
    as_json: o.Json = False,
) -> int:
    """Show metrics over the nights, drawn and never judged, and since when a cell fails.

    Example: `farm history show '*:pixel8' --metric tg64`
    """
    from farm import codec, paths
    from farm.commands import history as command
    from farm.core.errors import ConfigError
    from farm.run import run_folder
    from farm.state.history import History
    from farm.ui import tables

    index = History(paths.history_db(paths.farm_home()))
    nights = command.chosen(index.nights(name=name, limit=limit), cell, metric)
    index.close()
    if to is not None and to.suffix == ".parquet":
        command.write_parquet(nights, to)
    elif to is not None and to.suffix == ".csv":
        run_folder.write_text(to, command.as_csv(nights))
    elif to is not None:
        raise ConfigError(f"--to {to}: write a name that ends with .csv or .parquet")
    found = command.lines(nights)
    if as_json:
        show.print_json([codec.to_data(line) for line in found])
    else:
        show.print_table(tables.nights(found))
    return 0


@history_app.command("export")
def history_export(
    to: Annotated[Path, typer.Argument(help="File to write (JSON).")],
) -> int:
    """Write the whole index to a file, for a machine that is thrown away after the night."""
    from farm import paths
    from farm.run import run_folder
    from farm.state.history import History

    index = History(paths.history_db(paths.farm_home()))
    data = index.dump()
    index.close()
    run_folder.write_json(to, data)
    show.print_text(f"{to}: {len(data['tables']['runs'])} runs")
    return 0


@history_app.command("import")
def history_import(
    runs: Annotated[
        list[str], typer.Argument(help="Run ids or folders, or files of `farm history export`.")
    ],
    out: o.Out = o.RUNS,
) -> int:
    """Add runs to the index, for example after it was lost, or on a new machine."""
    from farm import paths
    from farm.reports.json import load_report
    from farm.run import run_folder
    from farm.state.history import History

    index = History(paths.history_db(paths.farm_home()))
    for run in runs:
        if Path(run).is_file():
            show.print_text(f"{run}: {index.load(Path(run))} runs")
            continue
        folder = run_folder.find(run, out)
        index.add(load_report(folder / run_folder.REPORT), folder, {})
        show.print_text(f"added {folder.name}")
    index.close()
    return 0
