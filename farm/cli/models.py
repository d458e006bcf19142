"""`farm models`: what a config can name, and what is known to be right of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as o
from farm.cli import show
from farm.cli.group import Commands

if TYPE_CHECKING:
    from farm.commands.known_good import KnownGood

app = typer.Typer(
    cls=Commands,
    help="List models; measure the anchors and bounds that runs of them are judged by.",
    rich_markup_mode=None,
)

_Name = Annotated[str, typer.Argument(help="A model as `farm models` lists it, or a path.")]
_Out = Annotated[
    Path | None, typer.Option(help="File to write; default: beside this host's models.")
]
_Tokens = Annotated[int, typer.Option(min=32, help="Tokens of the built-in text.")]


@app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: o.Json = False) -> int:
    """List the models that a config can name, and where each comes from."""
    if context.invoked_subcommand is not None:
        return 0
    from farm.planning import catalog
    from farm.ui import tables

    rows = catalog.model_rows()
    header = ("model", "parameters", "source", "note")
    if as_json:
        show.print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        show.print_table(tables.plain(header, rows))
    return 0


@app.command()
def anchor(name: _Name, out: _Out = None, tokens: _Tokens = 256, as_json: o.Json = False) -> int:
    """Ask transformers about a model and keep what it says, for every later run of it.

    An anchor is token ids of the built-in text, some of its logits and their perplexity, computed
    by code that shares nothing with farm. A run of weights that have one fails where farm reads
    them differently; weights that have none are asked about each time where transformers is
    installed, and are called `unanchored` where it is not. A GGUF needs the package accelerate too.

    Example: farm models anchor smollm2-135m
    """
    from farm.commands.known_good import measure_anchor, source_of

    return _shown(measure_anchor(source_of(name), out, tokens), as_json=as_json)


@app.command()
def bound(
    name: _Name,
    recipe: Annotated[str, typer.Option("--recipe", help="As `farm recipes` lists it.")],
    out: _Out = None,
    tokens: _Tokens = 256,
    as_json: o.Json = False,
) -> int:
    """Measure what a recipe's rounding costs a model, and hold later exports to it.

    Without one a recipe has one bound for all models, which a small model's rounding fits and much
    else fits too; rows say `bound_not_learned`.

    Example: farm models bound smollm2-135m --recipe xnnpack-8da4w
    """
    from farm.commands.known_good import measure_bound, source_of

    return _shown(measure_bound(source_of(name), recipe, out, tokens), as_json=as_json)


def _shown(found: KnownGood, *, as_json: bool) -> int:
    if as_json:
        show.print_json({"path": found.path, "summary": found.summary, "data": found.data})
    else:
        show.print_text(f"{found.summary}\n{found.path}")
    return 0
