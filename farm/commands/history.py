"""`farm history show`: the metrics of cells over the nights, as lines for people and as a table."""

from __future__ import annotations

import csv
import dataclasses
import fnmatch
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.core.errors import ConfigError, StoreError
from farm.core.rules.trend import red_since, sparkline
from farm.state.history import Night


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one cell over the nights."""

    cell_id: str
    metric: str
    unit: str
    nights: int
    latest: float | None
    #: Latest against the middle of the nights before; numbers of nights are never judged.
    change: float | None
    drawn: str
    #: Run in which the cell began to fail; empty where it isn't failing.
    red_since: str


def chosen(nights: Sequence[Night], cell: str, metric: str) -> list[Night]:
    """Return the rows of cells that match a glob, of one metric or of all.

    Raises:
        ConfigError: There is none; names what there is.
    """
    found = [
        night
        for night in nights
        if (not cell or fnmatch.fnmatchcase(night.cell_id, cell))
        and (not metric or night.metric == metric)
    ]
    if not found:
        cells = ", ".join(sorted({night.cell_id for night in nights})[:5]) or "no run"
        metrics = ", ".join(sorted({night.metric for night in nights}))
        raise ConfigError(f"no such cell or metric in the history; it has {cells}; {metrics}")
    return found


def lines(nights: Sequence[Night]) -> list[Line]:
    """Fold rows, oldest first, into a line for each cell and metric of the warm regime."""
    groups: dict[tuple[str, str], list[Night]] = {}
    for night in nights:
        if night.regime == "warm":
            groups.setdefault((night.cell_id, night.metric), []).append(night)
    return [_line(group) for _, group in sorted(groups.items())]


def _line(group: Sequence[Night]) -> Line:
    last = group[-1]
    trusted = [None if night.trust == "invalid" else night.median for night in group]
    before = sorted(value for value in trusted[:-1] if value)
    change = None
    if trusted[-1] and before:
        change = trusted[-1] / before[len(before) // 2] - 1
    first_red = red_since([night.outcome for night in group])
    return Line(
        last.cell_id,
        last.metric,
        last.unit,
        len(group),
        trusted[-1],
        change,
        sparkline(trusted[-30:]),
        "" if first_red is None else group[first_red].run_id,
    )


def as_csv(nights: Sequence[Night]) -> str:
    """Return every row and column as CSV."""
    names = [field.name for field in dataclasses.fields(Night)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for night in nights:
        writer.writerow(dataclasses.asdict(night))
    return text.getvalue()


def write_parquet(nights: Sequence[Night], path: Path) -> None:
    """Write every row and column as Parquet.

    Raises:
        ConfigError: pyarrow isn't installed beside farm.
        StoreError: The file can't be written.
    """
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            f"{path}: Parquet needs pyarrow (`.venv/bin/pip install pyarrow`); a file that ends"
            " with .csv doesn't"
        ) from error
    try:
        parquet.write_table(arrow.Table.from_pylist([dataclasses.asdict(n) for n in nights]), path)
    except OSError as error:
        raise StoreError(f"can't write {path}: {error}") from error
