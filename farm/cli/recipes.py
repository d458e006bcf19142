"""The recipes commands: which there are, and what each costs and gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as o
from farm.cli import show
from farm.cli.group import Commands

if TYPE_CHECKING:  # keeps `farm --help` quick
    from farm.core.result import Report
    from farm.planning.planning import RunOptions
    from farm.reports.recipes import RecipeGroup

app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    help="Recipes that a config can name; compare them on devices.",
)


@app.callback()
def recipes(context: typer.Context, as_json: o.Json = False) -> None:
    """List the recipes that a config can name; `compare` measures them.

    Example: `farm recipes compare configs/recipes.yaml`
    """
    if context.invoked_subcommand is not None:
        return
    from farm import codec
    from farm.planning import catalog
    from farm.ui import tables

    found = catalog.all_recipes()
    if as_json:
        show.print_json([codec.to_data(recipe) for recipe in found])
    else:
        show.print_table(tables.recipes(found))


@app.command("compare")
def compare(
    what: Annotated[
        str,
        typer.Argument(help="Run config (YAML) to run; or a run of before: id, latest, folder."),
    ],
    inventory: o.InventoryFile = None,
    select: o.Select = "",
    set_: o.Set = None,
    cluster: o.Cluster = "local",
    token: o.Token = None,
    out: o.Out = o.RUNS,
    plot: Annotated[
        Path | None, typer.Option(help="File of the plot (SVG); default: in the run's folder.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="The run was cut short: finish it first.")
    ] = False,
    live: o.Live = "auto",
    quick: o.Quick = False,
    as_json: o.Json = False,
) -> int:
    """Say which recipes are worth shipping on each device: quality, size, memory and speed.

    Runs a config whose matrix names several recipes, or reads a run of before; with --resume one
    that was cut short goes on, and what it exported and measured stays. A recipe is on the front
    when no other one is at least as good in every number and better in one. The first recipe of
    the config is what the others are held against. The exit code is that of `farm run`.

    Example: `farm recipes compare configs/recipes.yaml --select transport=local`
    """
    from farm import codec
    from farm.planning.planning import RunOptions
    from farm.reports.recipes import compare_recipes

    config = Path(what) if Path(what).is_file() and not resume else None
    if config is None and not resume:
        report, folder = _read(what, out)
    else:
        o.enter(cluster, token)
        options = RunOptions(
            config=config,
            inventory=inventory,
            select=select,
            overrides=tuple(set_ or ()),
            cluster=cluster,
            out=out,
            quick=quick,
        )
        report, folder = _run(options, live, what if resume else None)
    groups = compare_recipes(report)
    file = plot or folder / "recipes.svg"
    _draw(groups, file)
    if as_json:
        found = {"run_id": report.run_id, "verdict": report.verdict_line, "plot": str(file)}
        show.print_json(found | {"groups": [codec.to_data(group) for group in groups]})
        return report.exit_code
    from farm.ui import recipes as tables

    show.print_table(tables.compared(groups))
    show.print_text(f"Plot: {file}")
    show.print_text(report.verdict_line)
    return report.exit_code


def _run(options: RunOptions, live: str, resumed: str | None) -> tuple[Report, Path]:
    from farm.paths import farm_home
    from farm.run import run_folder
    from farm.run.run import resume_run, run_config

    # Standard output is the comparison's.
    with show.watching(live, as_json=True) as emit:
        if resumed is None:
            finished = run_config(options, farm_home(), emit)
        else:
            folder = run_folder.find(resumed, options.out)
            finished = resume_run(folder, options, farm_home(), emit)
    return finished.report, finished.folder


def _read(run: str, out: Path) -> tuple[Report, Path]:
    from farm.paths import farm_home
    from farm.run import run_folder
    from farm.run.rebuild import report_of

    folder = run_folder.find(run, out)
    return report_of(folder, farm_home()), folder


def _draw(groups: list[RecipeGroup], file: Path) -> None:
    from farm.core.errors import ConfigError
    from farm.files import write_whole
    from farm.reports.pareto import pareto_svg

    try:
        write_whole(file, pareto_svg(groups).encode())
    except OSError as error:
        raise ConfigError(f"--plot: can't write {file}: {error.strerror}") from error
