"""The sim command."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show


def sim(
    config: o.Config,
    inventory: o.InventoryFile = None,
    select: o.Select = "",
    set_: o.Set = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Devices: copies of those that answer. Default: 1x."),
    ] = None,
    hosts: Annotated[int, typer.Option(min=1, max=10_000, help="Hosts that export.")] = 1,
    cpus: Annotated[
        int | None, typer.Option(min=1, max=4096, help="CPUs of each. Default: as this host.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="Also say what ends within this time, e.g. 6h.")
    ] = None,
    nights: Annotated[int, typer.Option(min=1, max=10_000, help="Simulated nights.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the first night.")] = 1,
    scatter: Annotated[str, typer.Option(help="Scatter of each duration.")] = "5%",
    lost: Annotated[str, typer.Option(help="Share of jobs that lose their device.")] = "0%",
    as_json: o.Json = False,
) -> int:
    """Say how long a run will take, and what holds it up: only time is simulated.

    Durations come from earlier runs on this host; what none tells is assumed and named.
    Example: `farm sim configs/llama_q4.yaml --devices 20 --hosts 2 --deadline 2h`
    """
    from farm import codec
    from farm.cli.quantities import duration_s
    from farm.commands import sim as sim_command
    from farm.paths import farm_home
    from farm.planning.planning import RunOptions

    options = RunOptions(
        config=config,
        inventory=inventory,
        select=select,
        overrides=tuple(set_ or ()),
        cluster="none",  # devices are probed, and nothing runs
    )
    request = sim_command.SimRequest(
        options=options,
        devices=devices,
        hosts=hosts,
        cpus=cpus,
        nights=nights,
        seed=seed,
        scatter=o.share("--scatter", scatter),
        lost=o.share("--lost", lost),
        deadline_s=None if deadline is None else duration_s("--deadline", deadline),
    )
    made = sim_command.forecast(request, farm_home())
    if as_json:
        show.print_json(codec.to_data(made))
    else:
        from farm.ui import forecast

        show.print_table(forecast.forecast(made, request.deadline_s))
    return 0
