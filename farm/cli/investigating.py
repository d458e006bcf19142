"""Commands that find out why: bisect, compat, diagnose, repro."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as o
from farm.cli import show

if TYPE_CHECKING:
    from farm.commands.diagnose import Found
    from farm.commands.revisions import Axis


def bisect(
    config: Annotated[
        Path | None, typer.Argument(help="Run config with one cell. None with --resume.")
    ] = None,
    over: Annotated[
        str,
        typer.Option(
            help="What there are revisions of: toolchain (what exports), runtime (what runs, by"
            " release, on this machine), recipe, model or git."
        ),
    ] = "toolchain",
    revisions: Annotated[
        str,
        typer.Option(
            help="In order, the good one first: `1.4.1,1.5.0,1.5.1`, names of recipes, models or"
            " their folders; a folder of wheels; of git: GOOD..BAD."
        ),
    ] = "",
    metric: Annotated[
        str,
        typer.Option(
            help="What was lost: tg64, pp128, ttft, load, peak_rss_bytes, perplexity,"
            " artifact_bytes."
        ),
    ] = "tg64",
    loss: Annotated[str, typer.Option(help="How much was lost; nearer to it is bad.")] = "10%",
    repo: Annotated[
        Path | None, typer.Option(help="With `--over git`: a checkout, such as ExecuTorch's.")
    ] = None,
    build: Annotated[
        str,
        typer.Option(
            help="With `--over git`: command that leaves one .whl or .pte in $FARM_BISECT_OUT."
        ),
    ] = "",
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a search to go on with; nothing else is said.")
    ] = None,
    inventory: o.InventoryFile = None,
    select: o.Select = "",
    set_: o.Set = None,
    cluster: o.Cluster = "none",
    token: o.Token = None,
    out: o.Out = o.RUNS,
    live: o.Live = "auto",
    as_json: o.Json = False,
) -> int:
    """Find the revision that brought a loss of speed, memory or quality, in the fewest builds.

    Each revision runs beside the good one, in turns, until it is decided; the next one halves what
    is left. Exit 0: found; 3: no revision lost so much, or it can't be told.

    Example: `farm bisect configs/tiny.yaml --over recipe --revisions
    xnnpack-8da4w,xnnpack-8da4w-g64,xnnpack-fp32 --metric tg128 --loss 20%`
    """
    o.enter(cluster, token)
    from farm.commands import bisect as command
    from farm.commands.revisions import listed
    from farm.paths import farm_home
    from farm.ui import tables

    with show.watching(live, as_json=as_json) as emit:
        if resume is None:
            axis = _axis(over)
            question = command.Question(
                config=str(_given(config).resolve()),
                axis=axis,
                revisions=listed(axis, [r for r in revisions.split(",") if r], repo),
                metric=metric,
                loss=o.percentage("--loss", loss),
                inventory="" if inventory is None else str(inventory.resolve()),
                select=select,
                cluster=cluster,
                overrides=tuple(set_ or ()),
                repo="" if repo is None else str(repo.resolve()),
                build=build,
            )
            folder = command.begin(question, out, farm_home())
        else:
            folder = resume.resolve()
        found = command.search(folder, farm_home(), emit, show.say)
    if as_json:
        show.print_json(command.to_data(found))
    else:
        header = ("revision", "sittings", "against the good one", "")
        show.print_table(tables.plain(header, command.lines(found)))
        show.print_text(f"{found.sentence}. Runs: {folder}")
    return found.exit_code


def _axis(word: str) -> Axis:
    from farm.commands.revisions import AXES
    from farm.core.errors import ConfigError
    from farm.core.names import nearest

    found = next((axis for axis in AXES if axis == word), None)
    if found is None:
        meant = nearest(word, AXES)
        hint = "" if meant is None else f"; did you mean {meant}?"
        raise ConfigError(f"--over {word!r}: write one of {', '.join(AXES)}{hint}")
    return found


def _given(config: Path | None) -> Path:
    from farm.core.errors import ConfigError

    if config is None:
        raise ConfigError("give a run config; `ls configs` shows examples")
    return config


def compat(
    config: o.Config,
    versions: Annotated[
        str, typer.Option(help="Releases of ExecuTorch, with a comma between: 1.4.1,1.5.1.")
    ],
    set_: o.Set = None,
    cluster: o.Cluster = "none",
    token: o.Token = None,
    out: o.Out = o.RUNS,
    live: o.Live = "auto",
    as_json: o.Json = False,
) -> int:
    """Run programs of each ExecuTorch release on the runtimes of all, here: do they still work.

    Logits are compared with those of the same program in farm's native runner, and with PyTorch.
    Exit 0: every pairing works; 1: one is wrong or doesn't run; 3: one could not be tried.

    Example: `farm compat configs/tiny.yaml --versions 1.4.1,1.5.1`
    """
    o.enter(cluster, token)
    import tempfile

    from farm import codec
    from farm.commands import compat as command
    from farm.paths import farm_home
    from farm.planning.planning import RunOptions
    from farm.ui import tables

    wanted = [version.strip() for version in versions.split(",") if version.strip()]
    options = RunOptions(config=config, overrides=tuple(set_ or ()), cluster=cluster, out=out)
    with show.watching(live, as_json=as_json) as emit, tempfile.TemporaryDirectory() as name:
        inventory = Path(name) / "this-machine.yaml"
        found = command.compat(options, wanted, farm_home(), emit, inventory)
    if as_json:
        show.print_json([codec.to_data(one) for one in found.pairings])
    else:
        show.print_table(tables.plain(command.HEADER, command.lines(found)))
        show.print_text(f"Reports: {found.finished.folder}")
    return found.exit_code


Layer = Annotated[
    int | None,
    typer.Option(min=0, help="Look into this layer. Default: the first one that parts."),
]


def diagnose(
    run: o.Run,
    cell: o.Cell,
    layer: Layer = None,
    drivers: Annotated[
        bool,
        typer.Option(
            "--drivers",
            help="Drive it here by ExecuTorch's Python runtime too: in chunks, and by its"
            " TextLLMRunner.",
        ),
    ] = False,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    out: o.Out = o.RUNS,
    live: o.Live = "auto",
    as_json: o.Json = False,
) -> int:
    """Find the first layer and operator where a finished cell goes wrong, and the stage at fault.

    Its artifact runs here and on its device with the values of its layers brought out, and PyTorch
    computes each from the same inputs. Exit 0: nothing parts; 1: something does; 3: the device
    could not be looked at, or what ran isn't known to give the cell's own numbers.

    Example: `farm diagnose latest tiny-llama/xnnpack-8da4w/executorch/auto:local`
    """
    import tempfile

    from farm import codec
    from farm.ui import diagnosis as tables

    with tempfile.TemporaryDirectory(prefix="farm-diagnose-") as name:
        place = (cluster, token, out)
        found = _diagnosed(run, cell, layer, place, live, Path(name), as_json, drivers=drivers)
    if as_json:
        show.print_json(codec.to_data(found.diagnosis))
    else:
        show.print_table(tables.diagnosis(found.diagnosis))
    return found.exit_code


def repro(
    run: o.Run,
    cell: o.Cell,
    to: Annotated[
        Path | None, typer.Option(help="Folder to make. Default: repro-RUN-CELL.")
    ] = None,
    layer: Layer = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    out: o.Out = o.RUNS,
    live: o.Live = "auto",
    as_json: o.Json = False,
) -> int:
    """Write the layer that `farm diagnose` blames to a folder whose repro.sh needs no farm.

    It holds the layer's program, its inputs, the runner and what PyTorch computes; the script uses
    plain adb, ssh or this machine. Exits as `farm diagnose` does, and with 2 where there is no
    layer to show.

    Example: `farm repro latest tiny-llama/xnnpack-8da4w/executorch/auto:local --layer 0`
    """
    import tempfile

    from farm import codec
    from farm.commands import repro as command
    from farm.core.errors import ConfigError
    from farm.paths import farm_home
    from farm.run import run_folder

    place = re.sub(r"[^A-Za-z0-9.]+", "-", cell)
    folder = to or Path(f"repro-{run_folder.find(run, out).name}-{place}")
    if folder.exists():  # asked before the device is taken
        raise ConfigError(f"{folder}: exists already; give another with --to")
    with tempfile.TemporaryDirectory(prefix="farm-diagnose-") as name:
        found = _diagnosed(run, cell, layer, (cluster, token, out), live, Path(name), as_json)
        script = command.write(found, folder, farm_home())
    if as_json:
        show.print_json({"script": str(script), "diagnosis": codec.to_data(found.diagnosis)})
    else:
        show.print_text(f"{found.diagnosis.sentence}\nRun {script}")
    return found.exit_code


def _diagnosed(
    run: str,
    cell: str,
    layer: int | None,
    place: tuple[str, Path | None, Path],
    live: str,
    scratch: Path,
    as_json: bool,
    *,
    drivers: bool = False,
) -> Found:
    cluster, token, out = place
    o.enter(cluster, token)
    from farm.commands.diagnose import diagnose
    from farm.paths import farm_home
    from farm.run import run_folder

    folder, home = run_folder.find(run, out), farm_home()
    with show.watching(live, as_json=as_json) as emit:
        return diagnose(
            folder, cell, home, emit, show.say, cluster=cluster, layer=layer, drivers=drivers,
            scratch=scratch,
        )  # fmt: skip
