"""`farm history`: the metrics of cells over the nights, as lines, as a table, and as a page."""

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
from farm.core.nights import counted
from farm.core.rules.changes import changes
from farm.core.rules.trend import red_since, sparkline
from farm.reports import dashboard
from farm.run import run_folder
from farm.state.history import History, Night, PastRun

#: Nights that are drawn.
SHOWN = 30


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
    #: Changes of level: share, and the first run of the new level; never judged.
    moved: tuple[tuple[float, str], ...] = ()


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


def write_page(index: History, name: str | None, limit: int, folder: Path) -> Path:
    """Write a page of the newest runs of the index, of one config or of all; return its path.

    Raises:
        StoreError: The folder can't be made or written.
    """
    runs = index.runs(name=name, limit=limit)
    groups: dict[tuple[str, str, str], list[Night]] = {}
    for night in index.nights(name=name, limit=limit):
        if night.regime == "warm":
            groups.setdefault((night.name, night.cell_id, night.metric), []).append(night)
    checks = {
        config: counted(found[0], found[1:])
        for config in {run.name for run in runs}
        if (found := index.self_checks(config, limit=limit))
    }
    path = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"can't make {folder}: {error.strerror}") from error
    trends = [_trend(group) for group in groups.values()]
    newest: dict[str, PastRun] = {}
    for run in runs:
        newest.setdefault(run.name, run)
    outcomes = {config: index.outcomes(run.run_id) for config, run in newest.items()}
    run_folder.write_text(path, dashboard.render(runs, trends, checks, outcomes))
    return path


def _trend(group: Sequence[Night]) -> dashboard.Trend:
    line = _line(group)
    return dashboard.Trend(group, line.change, line.red_since, line.moved)


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
        _drawn(trusted),
        "" if first_red is None else group[first_red].run_id,
        tuple((one.after / one.before - 1, group[one.place].run_id) for one in changes(trusted)),
    )


def _drawn(values: Sequence[float | None]) -> str:
    """The last nights as bars; `|` stands before a night at which the level changed."""
    bars = list(sparkline(values[-SHOWN:]))
    hidden = max(0, len(values) - SHOWN)
    for one in changes(values):
        if one.place >= hidden:
            bars[one.place - hidden] = f"|{bars[one.place - hidden]}"
    return "".join(bars)


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
