"""Commands that look: report, runners, models, recipes, doctor, schema."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show


def report(
    run: Annotated[str, typer.Argument(help="Run id, `latest` or folder.")] = "latest",
    format_: Annotated[
        str, typer.Option("--format", help="table, json, junit, markdown, html or pytorch.")
    ] = "table",
    out: o.Out = o.RUNS,
) -> int:
    """Print the report of a run; of one that was killed, what its journal knows.

    Example: `farm report latest --format markdown`
    """
    from farm.paths import farm_home
    from farm.reports import renderers
    from farm.run import run_folder
    from farm.run.rebuild import report_of

    loaded = report_of(run_folder.find(run, out), farm_home())
    if format_ == "table":
        from farm.ui import tables

        show.print_table(tables.report(loaded))
        show.print_text(loaded.verdict_line)
    else:
        show.print_text(renderers.render(loaded, format_))
    return 0


def compare(
    before: Annotated[str, typer.Argument(help="Run id, `latest` or folder.")],
    after: Annotated[str, typer.Argument(help="The later run.")],
    out: o.Out = o.RUNS,
    as_json: o.Json = False,
) -> int:
    """Put two runs side by side, cell by cell: outcomes, numbers, what else differs.

    Numbers of two sittings are shown, not judged: `farm nightly` judges side by side.
    """
    from farm import codec
    from farm.commands.compare import compare as compare_runs
    from farm.paths import farm_home
    from farm.run import run_folder
    from farm.run.rebuild import report_of
    from farm.ui import tables

    loaded = (report_of(run_folder.find(run, out), farm_home()) for run in (before, after))
    found = compare_runs(*loaded)
    if as_json:
        show.print_json([codec.to_data(cell) for cell in found])
    else:
        show.print_table(tables.compared(found))
    return 0


def runners(
    action: Annotated[str, typer.Argument(help="`list`, or `build`.")] = "list",
    abi: Annotated[
        str,
        typer.Argument(
            help="For build: x86_64, arm64-v8a, android-arm64-v8a...; default: this machine's."
        ),
    ] = "",
    as_json: o.Json = False,
) -> int:
    """List the runners, or build the native one ahead of its first use.

    Example: `farm runners build arm64-v8a`
    """
    from farm.commands import runners as runners_command
    from farm.core.errors import ConfigError
    from farm.paths import farm_home
    from farm.ui import tables

    if action == "build":
        built = runners_command.build(abi, farm_home(), show.say)
        header: tuple[str, ...] = ("runner", "abi", "version", "libc", "how", "sha256")
        rows: list[tuple[str, ...]] = [
            (built.name, built.abi, built.version, built.libc or "", built.how, built.sha256)
        ]
    elif action == "list":
        header = ("runner", "target", "how", "built")
        rows = [*runners_command.listing(farm_home())]
    else:
        raise ConfigError(f"farm runners {action}: write list or build")
    if as_json:
        show.print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        show.print_table(tables.plain(header, rows))
    return 0


def models(as_json: o.Json = False) -> int:
    """List the models that a config can name, and where each comes from."""
    from farm.planning import catalog
    from farm.ui import tables

    rows = catalog.model_rows()
    header = ("model", "parameters", "source", "note")
    if as_json:
        show.print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        show.print_table(tables.plain(header, rows))
    return 0


def recipes(as_json: o.Json = False) -> int:
    """List the recipes that a config can name."""
    from farm import codec
    from farm.planning import catalog
    from farm.ui import tables

    found = catalog.all_recipes()
    if as_json:
        show.print_json([codec.to_data(recipe) for recipe in found])
    else:
        show.print_table(tables.recipes(found))
    return 0


def doctor(as_json: o.Json = False) -> int:
    """Check this machine for everything farm needs, with the remedy for what is missing."""
    from farm import codec
    from farm.commands import doctor
    from farm.paths import farm_home
    from farm.ui import tables

    found = doctor.checks(farm_home())
    if as_json:
        show.print_json([codec.to_data(check) for check in found])
    else:
        show.print_table(tables.doctor(found))
    return 3 if any(check.status == "error" for check in found) else 0


def schema(
    what: Annotated[str, typer.Argument(help="report, config or inventory.")] = "report",
) -> int:
    """Print the JSON Schema of report.json, run configs or inventories."""
    from farm.config.schema import inventory_schema, run_schema
    from farm.core.errors import ConfigError
    from farm.reports.json import report_schema

    schemas = {"report": report_schema, "config": run_schema, "inventory": inventory_schema}
    if what not in schemas:
        raise ConfigError(f"no schema {what!r}; there are: {', '.join(schemas)}")
    show.print_json(schemas[what]())
    return 0
