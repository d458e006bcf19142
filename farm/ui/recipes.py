"""Tables of `farm recipes compare`. Only words and colours."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from farm.core.printable import one_line
from farm.reports.recipes import RecipeGroup, RecipeRow
from farm.reports.words import number, seconds, size
from farm.ui.frame import new_table


def compared(groups: Sequence[RecipeGroup]) -> RenderableType:
    """A table for each device, and what is missing or not to be trusted below it."""
    return Group(*(part for group in groups for part in _group(group)))


def _group(group: RecipeGroup) -> list[RenderableType]:
    threads = f"{group.threads} threads" if group.threads else "threads auto"
    where = f"{group.model}, {group.toolchain}, {group.runner}, {threads} on {group.device}"
    heads = (
        *("KL", "x first", "perplexity", "size", "peak RSS"),
        *(f"{group.prefill or 'prefill'} tok/s", f"{group.decode or 'decode'} tok/s"),
        *("x first", "export"),
    )
    table = new_table("recipe", *heads, "front", right=heads)
    notes: dict[str, list[str]] = {}
    for row in group.rows:
        table.add_row(*_columns(row))
        for name, why in row.reasons:
            notes.setdefault(f"{name}: {why}", []).append(row.recipe)
    parts: list[RenderableType] = [Text(one_line(where), "bold"), table]
    for note, names in notes.items():
        parts.append(Text(f"{one_line(note)} ({', '.join(names)})", "dim"))
    return parts


def _columns(row: RecipeRow) -> list[Text]:
    words = [
        row.recipe,
        number(row.kl),
        _times(row.kl_ratio),
        number(row.perplexity),
        size(row.size_bytes),
        size(row.peak_rss_bytes),
        number(row.prefill_tok_s),
        number(row.decode_tok_s),
        _times(row.decode_ratio),
        seconds(row.export_s),
        "yes" if row.on_front else row.off_front,
    ]
    columns = [Text(one_line(word)) for word in words]
    columns[0].stylize("bold")
    columns[-1].stylize("green" if row.on_front else "dim")
    return columns


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
