"""Rows of a report as a pandas frame; a number that doesn't exist is NaN."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from farm.core.errors import ConfigError
from farm.core.result import Report
from farm.reports.records import Table

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(table: Table, report: Report) -> DataFrame:
    """Return the rows of a report, with every column also where there is no row.

    Raises:
        ConfigError: pandas isn't installed.
    """
    try:
        pandas: Any = importlib.import_module("pandas")
    except ImportError as error:
        raise ConfigError(
            "frames need pandas: `pip install pandas` beside farm; `Run.report` has the same"
            " values without it"
        ) from error
    rows = list(table.rows(report))
    made: DataFrame = pandas.DataFrame.from_records(rows, columns=list(table.columns))
    return made
