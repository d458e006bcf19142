"""Commands that work: run, plan, export, bench."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as o
from farm.cli import show

if TYPE_CHECKING:  # keeps `farm --help` quick
    from farm.planning.planning import RunOptions
    from farm.run.run import Finished


def run(
    config: Annotated[
        Path | None,
        typer.Argument(help="Run config (YAML); examples are in configs/. None with --resume."),
    ] = None,
    inventory: o.InventoryFile = None,
    select: o.Select = "",
    set_: o.Set = None,
    cluster: o.Cluster = "local",
    token: o.Token = None,
    out: o.Out = o.RUNS,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with a run: only cells without a verdict run again."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Compare with a baseline: a name, or a report.json.")
    ] = None,
    live: o.Live = "auto",
    quick: o.Quick = False,
    as_json: o.Json = False,
) -> int:
    """Export, deploy, check, measure and judge every cell of a config.

    Example: `farm run configs/tiny.yaml --inventory lab.yaml --select 'transport=adb'`
    """
    o.enter(cluster, token)

    def options() -> tuple[RunOptions, Path | None]:
        from farm.planning.planning import RunOptions
        from farm.run import run_folder

        made = RunOptions(
            config=config,
            inventory=inventory,
            select=select,
            overrides=tuple(set_ or ()),
            cluster=cluster,
            out=out,
            baseline=baseline,
            quick=quick,
        )
        return made, None if resume is None else run_folder.find(resume, out)

    return watch(options, live, as_json=as_json).report.exit_code


def watch(
    asked: Callable[[], tuple[RunOptions, Path | None]],
    live: str,
    *,
    as_json: bool,
    self_check: bool = False,
) -> Finished:
    """Run a config, show how it goes and what it found.

    `asked` returns what the command line says, and the folder of a run to go on with; it is called
    when something is shown already, since its imports take a while. With `as_json` the report is
    printed as JSON, else the table, the files and the last line. With `self_check` try the gate
    afterwards where the config asks for it.
    """
    with show.watching(live, as_json=as_json, begin="reading the config") as emit:
        from farm.commands.self_check import with_self_check
        from farm.paths import farm_home
        from farm.run.run import resume_run, run_config

        options, folder = asked()
        if folder is None:
            finished = run_config(options, farm_home(), emit)
        else:
            finished = resume_run(folder, options, farm_home(), emit)
        if self_check:
            run = partial(run_config, home=farm_home(), emit=emit)
            finished = with_self_check(finished, options, farm_home(), run)
    return _shown(finished, as_json=as_json)


def rerun(
    run: o.Run,
    cell: o.Cell,
    on: Annotated[str, typer.Option(help="Another device of that run.")] = "",
    cluster: o.Cluster = "local",
    token: o.Token = None,
    out: o.Out = o.RUNS,
    live: o.Live = "auto",
    as_json: o.Json = False,
) -> int:
    """Run one cell of a run again, as a run of its own with the same config and baseline.

    Example: `farm rerun latest tiny-llama/xnnpack-8da4w:executorch:t1:local`
    """
    from farm.paths import farm_home
    from farm.planning.planning import RunOptions
    from farm.run import run_folder
    from farm.run.run import rerun_cell

    folder = run_folder.find(run, out)
    o.enter(cluster, token)
    options = RunOptions(config=None, cluster=cluster, out=out)
    with show.watching(live, as_json=as_json) as emit:
        finished = rerun_cell(folder, cell, options, farm_home(), emit, on=on)
    return _shown(finished, as_json=as_json).report.exit_code


def _shown(finished: Finished, *, as_json: bool) -> Finished:
    from farm.reports import renderers
    from farm.ui import tables

    report = finished.report
    if as_json:
        show.print_text(renderers.render(report, "json"))
        return finished
    show.print_table(tables.report(report))
    names = ("report.html", "report.json", "report.md", "junit.xml")
    there = [name for name in names if (finished.folder / name).exists()]
    show.print_text(f"Reports: {finished.folder}/{', '.join(there) or ' (none)'}")
    show.print_text(report.verdict_line)
    return finished


def plan(
    config: o.Config,
    inventory: o.InventoryFile = None,
    select: o.Select = "",
    set_: o.Set = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    as_json: o.Json = False,
) -> int:
    """Show what `farm run` would do, and why cells are left out. Runs nothing.

    Example: `farm plan configs/llama_q4.yaml --set 'matrix.threads=[1, 2]'`
    """
    o.enter(cluster, token)
    from farm.paths import farm_home
    from farm.planning import planning

    options = planning.RunOptions(
        config=config,
        inventory=inventory,
        select=select,
        overrides=tuple(set_ or ()),
        cluster=cluster,
    )
    prepared = planning.plan(options, farm_home())
    if as_json:
        show.print_json(planning.plan_data(prepared))
    else:
        from farm.ui import tables

        show.print_table(tables.plan(prepared.spec, prepared.plan, planning.left_out(prepared)))
    return 0


def export(
    config: o.Config,
    set_: o.Set = None,
    cluster: o.Cluster = "none",
    token: o.Token = None,
    copy: Annotated[
        Path | None, typer.Option(help="Also copy each .pte, .ptd and tokenizer into this folder.")
    ] = None,
    live: o.Live = "auto",
    as_json: o.Json = False,
) -> int:
    """Export every artifact of a config into the content store; needs no device.

    Example: `farm export configs/tiny.yaml --copy out/`
    """
    o.enter(cluster, token)
    from farm import codec
    from farm.commands import export as export_command
    from farm.paths import farm_home
    from farm.planning.planning import RunOptions

    options = RunOptions(config=config, overrides=tuple(set_ or ()), cluster=cluster)
    with show.watching(live, as_json=as_json) as emit:
        made = export_command.export(options, farm_home(), emit)
    copied = export_command.copy_out(made, farm_home(), copy) if copy is not None else []
    if as_json:
        show.print_json([codec.to_data(item.report) for item in made])
    else:
        from farm.ui import tables

        show.print_table(tables.exports([item.report for item in made]))
        for path in copied:
            show.print_text(str(path))
    return 3 if any(item.report.error is not None for item in made) else 0


def bench(
    pte: Annotated[Path, typer.Argument(help="A .pte with a KV cache, from any exporter.")],
    data: Annotated[
        Path | None, typer.Option(help="Its .ptd, where the weights are in a file of their own.")
    ] = None,
    on: Annotated[str, typer.Option(help="Device: a name of the inventory.")] = "local",
    inventory: o.InventoryFile = None,
    prefill: Annotated[str, typer.Option("-p", help="Prompt lengths, tokens: 128,512.")] = "128",
    decode: Annotated[str, typer.Option("-n", help="Reply lengths, tokens: 64.")] = "64",
    depth: Annotated[str, typer.Option("-d", help="Tokens of context before: 0,512.")] = "0",
    threads: Annotated[str, typer.Option("-t", help="Threads: 1,2,4; 0 chooses.")] = "0",
    launches: Annotated[int, typer.Option("-l", min=1, max=100, help="Process starts.")] = 3,
    precision: Annotated[
        str | None,
        typer.Option(help="More starts until intervals are this narrow: 2%, within --budget."),
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds for all starts of one -t.")] = 120.0,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    live: o.Live = "auto",
    as_json: o.Json = False,
) -> int:
    """Measure a .pte on one device: no config, no PyTorch, numbers in a minute.

    Lists are swept: `farm bench model.pte --on pixel8 -p 128,512 -n 64 -d 0,256 -t 1,4`
    """
    o.enter(cluster, token)
    from farm.commands import bench as bench_command
    from farm.core.spec import Workload
    from farm.paths import farm_home

    request = bench_command.BenchRequest(
        pte=pte,
        data=data,
        device=on,
        inventory=inventory,
        workload=Workload(
            prefill=tuple(n for n in o.numbers("-p", prefill) if n),
            decode=tuple(n for n in o.numbers("-n", decode) if n),
            depth=o.numbers("-d", depth),
            launches=launches,
            max_launches=launches if precision is None else max(launches, 50),
            precision=None if precision is None else o.percentage("--precision", precision),
            budget_s=budget,
        ),
        threads=o.numbers("-t", threads),
        cluster=cluster,
    )
    with show.watching(live, as_json=as_json) as emit:
        result = bench_command.bench(request, farm_home(), emit)
    if as_json:
        show.print_json(bench_command.to_data(result))
    else:
        from farm.ui import tables

        show.print_table(
            tables.bench(
                result.device.name, result.performance, result.peak_rss_bytes, result.stops
            )
        )
    return 0
