"""The profile command."""

from __future__ import annotations

from farm.cli import options as o
from farm.cli import show


def profile(
    config: o.Config,
    inventory: o.InventoryFile = None,
    select: o.Select = "",
    set_: o.Set = None,
    cluster: o.OnCluster = "none",
    token: o.Token = None,
    out: o.Out = o.RUNS,
    live: o.Live = "auto",
    as_json: o.Json = False,
) -> int:
    """Show where the time of a token goes on each device: delegates, operators, the rest.

    Example: `farm profile configs/llama_q4.yaml --set 'workload.prefill=[32]'`
    """
    o.enter(cluster, token)
    from farm import codec
    from farm.commands import profile as profile_command
    from farm.paths import farm_home
    from farm.planning.planning import RunOptions

    options = RunOptions(
        config=config,
        inventory=inventory,
        select=select,
        overrides=tuple(set_ or ()),
        cluster=cluster,
        out=out,
    )
    with show.watching(live, as_json=as_json) as emit:
        report, folder = profile_command.profile(options, farm_home(), emit)
    if as_json:
        show.print_json(codec.to_data(report))
    else:
        from farm.ui import profile as tables

        show.print_table(tables.profile(report))
        show.print_text(f"Reports: {folder}/profile.html, profile.json")
    return 3 if any(cell.error is not None for cell in report.cells) else 0
