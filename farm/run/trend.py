"""The cells of a night among those before it: since when they fail, where their metrics moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from farm.core.nights import LevelChange, MetricTrend
from farm.core.result import CellResult, Report
from farm.core.rules.changes import changes
from farm.core.rules.trend import red_since
from farm.state.history import Night

#: Nights that a report carries of each metric.
DRAWN = 30


def with_trend(report: Report, nights: Iterable[Night]) -> Report:
    """Return a report whose cells say what the nights before and this one show together.

    Args:
        report: The night.
        nights: Every metric of earlier nights, oldest first; those of this run don't count.
    """
    before: dict[str, list[Night]] = {}
    for night in nights:
        if night.run_id != report.run_id:
            before.setdefault(night.cell_id, []).append(night)
    cells = (
        _with_trend(cell, before.get(cell.cell_id, ()), report.run_id) for cell in report.results
    )
    return replace(report, results=tuple(cells))


def _with_trend(cell: CellResult, before: Sequence[Night], run_id: str) -> CellResult:
    outcomes = {night.run_id: night.outcome for night in before}
    runs = [*outcomes, run_id]
    red = red_since([*outcomes.values(), cell.outcome])
    found: list[LevelChange] = []
    trend: list[MetricTrend] = []
    for row in cell.performance:
        if row.regime != "warm" or row.reason:
            continue
        known = {
            night.run_id: night.median
            for night in before
            if (night.metric, night.regime, night.unit) == (row.metric, "warm", row.unit)
            and night.trust != "invalid"
            and night.device in ("", cell.device.identity)
        }
        series = [*known, run_id]
        values = [*known.values(), None if row.trust == "invalid" else row.median]
        found += [
            LevelChange(row.metric, row.unit, series[one.place], one.before, one.after)
            for one in changes(values)
        ]
        if known:
            last = tuple(series[-DRAWN:]), tuple(values[-DRAWN:])
            trend.append(MetricTrend(row.metric, row.unit, *last))
    since = "" if red is None else runs[red]
    return replace(cell, changes=tuple(found), red_since=since, trend=tuple(trend))
