"""Commands that look: report, runners, doctor, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farm.cli import names, show
from farm.cli import options as o


def init(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")] = Path(),
    wait: Annotated[
        float, typer.Option(help="Seconds that a silent device may take.", min=0.1)
    ] = 5.0,
    as_json: o.Json = False,
) -> int:
    """Write an inventory of what is attached and a config that uses it, and say what comes next.

    Example: `farm init lab`, then `farm run lab/farm.yaml --inventory lab/lab.yaml`
    """
    from farm import codec
    from farm.commands import everywhere
    from farm.commands import init as init_command
    from farm.core.device import Inventory
    from farm.paths import farm_home
    from farm.ui.devices import devices as table

    found = everywhere.look("none", Inventory(entries=()), "", farm_home(), wait)
    begun = init_command.begin(folder, found, Path("~/.ssh").expanduser())
    inventory, config = begun.files
    if as_json:
        show.print_json(codec.to_data(begun))
        return 0
    show.print_table(table(found))
    keys = ", ".join(str(path) for path in begun.keys) or "none yet: `ssh-keygen -t ed25519`"
    show.print_text(
        f"wrote {inventory} and {config}\n"
        "A board over ssh is a line more in the inventory:\n"
        "  - {name: pi5, transport: ssh, host: pi5.lab, user: pi, identity: ~/.ssh/id_ed25519}\n"
        f"  its user needs one of your public keys ({keys});\n"
        f"  then `farm devices trust pi5 --inventory {inventory}` records its host key.\n"
        f"Next: farm plan {config} --inventory {inventory}\n"
        f"      farm run {config} --inventory {inventory}"
    )
    return 0


def report(
    run: o.Run = "latest",
    other: Annotated[
        str | None,
        typer.Argument(help="A later run: both side by side.", autocompletion=names.runs),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="table, json, junit, markdown, html, pytorch, openmetrics, csv, llama-bench or "
            "llama-bench-sql.",
            autocompletion=names.formats,
        ),
    ] = "table",
    out: o.Out = o.RUNS,
) -> int:
    """Print the report of a run; of one that was killed, what its journal knows.

    Example: `farm report latest --format markdown`. Two runs side by side, as `farm compare` or as
    a page: `farm report A B --format html`
    """
    from farm.paths import farm_home
    from farm.reports import renderers
    from farm.run import run_folder
    from farm.run.rebuild import report_of

    if other is not None:
        return _side_by_side(run, other, out, format_)
    loaded = report_of(run_folder.find(run, out), farm_home())
    if format_ == "table":
        from farm.ui import tables

        show.print_table(tables.report(loaded))
        show.print_text(loaded.verdict_line)
    else:
        show.print_text(renderers.render(loaded, format_))
    return 0


def _side_by_side(before: str, after: str, out: Path, format_: str) -> int:
    from farm.core.errors import ConfigError

    if format_ in ("table", "json"):
        return compare(before, after, out, as_json=format_ == "json")
    if format_ != "html":
        raise ConfigError(f"--format {format_}: two runs are shown as table, json or html")
    from farm.commands.side_by_side import page
    from farm.paths import farm_home
    from farm.run import run_folder
    from farm.run.rebuild import report_of

    both = [report_of(run_folder.find(run, out), farm_home()) for run in (before, after)]
    show.print_text(page(*both))
    return 0


def compare(
    before: o.Run,
    after: Annotated[str, typer.Argument(help="The later run.")],
    out: o.Out = o.RUNS,
    as_json: o.Json = False,
) -> int:
    """Put two runs side by side, cell by cell: outcomes, numbers, what else differs.

    Numbers of two sittings are shown, not judged: `farm nightly` judges side by side. Those that
    can't be compared get no ratio, and the reason; where none can be, the exit code is 3.
    """
    from farm import codec
    from farm.commands.compare import compare as compare_runs
    from farm.commands.compare import refused
    from farm.paths import farm_home
    from farm.run import run_folder
    from farm.run.rebuild import report_of
    from farm.ui import tables

    both = [report_of(run_folder.find(run, out), farm_home()) for run in (before, after)]
    found = compare_runs(both[0], both[1])
    if as_json:
        show.print_json([codec.to_data(cell) for cell in found])
    else:
        show.print_table(tables.compared(found))
        for line in dict.fromkeys(line for cell in found for line in cell.places):
            show.print_text(line)
        for line in refused(found):
            show.print_text(line)
    return 0 if any(pair.ratio is not None for cell in found for pair in cell.pairs) else 3


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
    from farm.config.inventory_schema import inventory_schema
    from farm.config.schema import run_schema
    from farm.core.errors import ConfigError
    from farm.core.names import meant
    from farm.reports.json import report_schema

    schemas = {"report": report_schema, "config": run_schema, "inventory": inventory_schema}
    if what not in schemas:
        near = meant(what, schemas)
        raise ConfigError(f"no schema {what!r}; there are: {', '.join(schemas)}{near}")
    show.print_json(schemas[what]())
    return 0
