"""Commands about the content store: list, verify, gc."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.cli import options as o
from farm.cli import show
from farm.cli.group import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="The content store under FARM_HOME: what is in it, is it intact, what can go.",
)


@app.command("list")
def list_(
    all_: Annotated[
        bool, typer.Option("--all", help="Also references and host runs, one a line.")
    ] = False,
    as_json: o.Json = False,
) -> int:
    """Show every artifact: model, recipe, toolchain, size, last use, and who keeps it.

    Sizes add up to more than the store where artifacts share a file (external weights).

    Example: `farm store list --all`
    """
    from farm import codec
    from farm.commands import store as store_command
    from farm.paths import farm_home
    from farm.ui import store

    found = store_command.contents(farm_home())
    if as_json:
        show.print_json({**codec.to_data(found), "size_bytes": found.size_bytes})
    else:
        show.print_table(store.contents(found, everything=all_))
    return 0


@app.command("verify")
def verify(
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove damaged objects; the next run remakes them.")
    ] = False,
    as_json: o.Json = False,
) -> int:
    """Hash every object again and name the damaged ones. Exit code 1 when there are some.

    Example: `farm store verify --remove`
    """
    from farm import codec
    from farm.commands import store as store_command
    from farm.paths import farm_home
    from farm.ui import store

    found = store_command.verify(farm_home(), remove=remove)
    if as_json:
        show.print_json(codec.to_data(found))
    else:
        show.print_table(store.verified(found))
    return 1 if found.damaged else 0


@app.command("gc")
def gc(
    keep_last: Annotated[
        int | None,
        typer.Option(min=0, help="Keep the N entries of each kind that were used last."),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Remove the least recently used down to this: `20GiB`.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Remove what wasn't used for longer: `30d`, `12h`.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove. Without it nothing is touched.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go; the default.")
    ] = False,
    as_json: o.Json = False,
) -> int:
    """Remove what nothing needs: says what would go, and with --yes removes it.

    Without options only objects that no artifact, reference or host run names go, and temporary
    files of killed processes. What a baseline names always stays, and so does whatever a running
    command has used since it began; it may go on meanwhile.

    Example: `farm store gc --older-than 30d --max-size 20GiB --yes`
    """
    from farm import codec
    from farm.cli.quantities import duration_s, size_bytes
    from farm.commands import store as store_command
    from farm.core.errors import ConfigError
    from farm.core.rules.retention import Policy
    from farm.paths import farm_home
    from farm.ui import store

    if yes and dry_run:
        raise ConfigError("--yes and --dry-run contradict each other: give one of them")
    policy = Policy(
        keep_last=keep_last,
        max_bytes=None if max_size is None else size_bytes("--max-size", max_size),
        older_than_s=None if older_than is None else duration_s("--older-than", older_than),
    )
    found = store_command.collect(farm_home(), policy, apply=yes)
    if as_json:
        freed = found.removal.freed_bytes + found.temporary_bytes
        show.print_json({**codec.to_data(found), "freed_bytes": freed})
    else:
        show.print_table(store.collected(found))
    return 0
