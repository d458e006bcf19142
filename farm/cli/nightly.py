"""Commands of release teams: nightly, baseline, history."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as o
from farm.cli import show
from farm.cli.group import Commands

if TYPE_CHECKING:
    from farm.commands.nightly import Told
    from farm.run.baselines import Baseline
    from farm.run.run import Finished

baseline_app = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Named baselines that later runs are compared with."
)
history_app = typer.Typer(cls=Commands, invoke_without_command=True, help="Past runs of this host.")


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
        return watch(asked, live, as_json=as_json, self_check=True)

    def asked() -> tuple[RunOptions, Path | None]:
        if resume is not None:  # its journal has the plan, its baseline and what it requires
            return options, run_folder.find(resume, out)
        chosen = nightly_options(options, farm_home(), allow_no_baseline=allow_no_baseline)
        return chosen, None

    told = Told(webhook, mail)
    finished = told_night(night, told, str(config or resume))
    return _deployed(finished, told, cluster, as_json=as_json)


def _deployed(finished: Finished, told: Told, cluster: str, *, as_json: bool) -> int:
    """Deploy what the config wants of a green night; its exit code is that of both."""
    from farm.commands.nightly import told_deployment
    from farm.deploy import night
    from farm.paths import farm_home
    from farm.ui import deploy as ui

    home = farm_home()
    wish = night.wish_of(finished, home)
    if wish is None:
        code = finished.report.exit_code
        if finished.report.config.get("deploy"):
            show.say(f"nothing is deployed: the night ended with exit {code}, not 0")
        return code

    def say(device: str, text: str) -> None:
        show.say(f"{device}: {text}" if device else text)

    def deploy() -> tuple[int, str]:
        ended = night.deploy_night(wish, finished, home, say, cluster)
        code = ui.exit_code(ended)
        return code, f"{ui.last_line(ended)} -> exit {code}"

    code, line = told_deployment(deploy, told, finished)
    # With --json stdout is the report, and nothing else.
    (show.say if as_json else show.print_text)(line)
    return code


@baseline_app.command("set")
def baseline_set(
    run: o.Run,
    name: Annotated[str, typer.Argument(help="Name, usually the config's.")],
    out: o.Out = o.RUNS,
    as_json: o.Json = False,
) -> int:
    """Take a run's passed cells into the baseline of that name, without untrusted numbers.

    Cells that the run did not judge stay those of an earlier run.
    """
    from farm import paths
    from farm.reports.json import load_report
    from farm.run import baselines, run_folder

    report = load_report(run_folder.find(run, out) / run_folder.REPORT)
    change = baselines.set_baseline(paths.baselines(paths.farm_home()), name, report)
    if as_json:
        parts = ("added", "replaced", "kept", "refused", "slower")
        told = {part: getattr(change, part) for part in parts}
        show.print_json({"name": name, "run_id": report.run_id, **told})
        return 0
    taken = len(change.added) + len(change.replaced)
    show.print_text(f"baseline {name}: {taken} cells of run {report.run_id}")
    for cell in change.added:
        show.print_text(f"  added {cell}")
    for cell in change.replaced:
        show.print_text(f"  replaced {cell}")
    for cell in change.slower:
        show.print_text(f"  slower than the one before, and accepted for good: {cell}")
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
    from farm.run import baselines

    root = paths.baselines(paths.farm_home())
    found = baselines.find_baseline(root, name)
    if found is None:
        raise baselines.unknown(root, name)
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
    limit: Annotated[
        int | None, typer.Option(help="Newest runs to show. Default: 30; of a page all.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page of all nights into this folder, ready to be published."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Show past runs of this host, newest first; with --html their trends, as a page.

    Example: `farm history --html public`
    """
    if context.invoked_subcommand is not None:
        return
    from farm import codec, paths
    from farm.commands import history as command
    from farm.state.history import EVERY, History
    from farm.ui import tables

    with contextlib.closing(History(paths.history_db(paths.farm_home()))) as index:
        if html is not None:
            page = str(command.write_page(index, name, limit or EVERY, html))
            show.told({"page": page}, page, as_json=as_json)
            return
        runs = index.runs(name=name, limit=limit or 30)
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
    as_json: o.Json = False,
) -> int:
    """Write the whole index to a file, for a machine that is thrown away after the night."""
    from farm import paths
    from farm.run import run_folder
    from farm.state.history import History

    index = History(paths.history_db(paths.farm_home()))
    data = index.dump()
    index.close()
    run_folder.write_json(to, data)
    count = len(data["tables"]["runs"])
    show.told({"file": str(to), "runs": count}, f"{to}: {count} runs", as_json=as_json)
    return 0


@history_app.command("import")
def history_import(
    runs: Annotated[
        list[str], typer.Argument(help="Runs, bundles, or files of `farm history export`.")
    ],
    out: o.Out = o.RUNS,
    as_json: o.Json = False,
) -> int:
    """Add runs to the index, for example after it was lost, or on a new machine."""
    from farm import paths
    from farm.reports.json import load_report
    from farm.run import run_folder
    from farm.state.history import History
    from farm.store.run_bundle import is_bundle

    index = History(paths.history_db(paths.farm_home()))
    added = {}
    for run in runs:
        if Path(run).is_file() and not is_bundle(Path(run)):
            added[run] = index.load(Path(run))
            continue
        folder = run_folder.find(run, out)
        index.add(load_report(folder / run_folder.REPORT), folder, {})
        added[folder.name] = 1
    index.close()
    text = "\n".join(f"{name}: {count} runs" for name, count in added.items())
    show.told({"runs": added}, text, as_json=as_json)
    return 0
