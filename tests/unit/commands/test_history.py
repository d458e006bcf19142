from __future__ import annotations

import csv
import importlib.util
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from farm.commands import history as command
from farm.core.errors import ConfigError
from farm.core.result import CellResult, Outcome
from farm.state.history import History, Night
from farm.ui import tables
from tests.unit.reports.builders import report, results


def cell(median: float, outcome: Outcome) -> CellResult:
    found = results()[0]
    rows = tuple(
        replace(p, median=median, trust="ok")
        for p in found.performance
        if (p.metric, p.regime) in (("tg32", "warm"), ("pp64", "warm"))
    )
    return replace(found, performance=rows, outcome=outcome)


@pytest.fixture
def nights(tmp_path: Path) -> list[Night]:
    index = History(tmp_path / "history.db")
    told: list[tuple[float, Outcome]] = [(80.0, "passed"), (82.0, "passed"), (60.0, "failed")]
    for day, (median, outcome) in enumerate([*told, (61.0, "inconclusive"), (60.5, "failed")]):
        made = replace(
            report((cell(median, outcome),)), run_id=f"r{day}", started_at=f"2026-01-0{day + 1}"
        )
        index.add(made, tmp_path, {})
    found = index.nights()
    index.close()
    return found


def test_a_line_tells_the_trend_and_since_when_a_cell_fails(nights: list[Night]) -> None:
    (line,) = command.lines(command.chosen(nights, "*", "tg32"))
    assert (line.nights, line.latest, line.unit) == (5, 60.5, "tok/s")
    assert line.change == pytest.approx(60.5 / 80 - 1)
    assert line.red_since == "r2"
    assert len(line.drawn) == 5
    console = Console(width=200, record=True)
    console.print(tables.nights([line]))
    text = console.export_text()
    assert line.drawn in text
    assert "r2" in text


def test_csv_has_every_row_and_column(nights: list[Night]) -> None:
    rows = list(csv.DictReader(io.StringIO(command.as_csv(nights))))
    assert len(rows) == 10
    assert rows[0]["run_id"] == "r0"
    assert {row["outcome"] for row in rows} == {"passed", "failed", "inconclusive"}
    assert all(row["artifact"] and row["toolchain"] and row["device"] for row in rows)


def test_a_cell_that_is_not_there_names_what_is(nights: list[Night]) -> None:
    with pytest.raises(ConfigError, match="pp64, tg32"):
        command.chosen(nights, "", "tg64")


def test_parquet_where_pyarrow_is_and_a_remedy_where_not(
    nights: list[Night], tmp_path: Path
) -> None:
    path = tmp_path / "nights.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(ConfigError, match="pip install pyarrow"):
            command.write_parquet(nights, path)
        return
    command.write_parquet(nights, path)
    pandas = pytest.importorskip("pandas")
    assert list(pandas.read_parquet(path)["run_id"])[:1] == ["r0"]
