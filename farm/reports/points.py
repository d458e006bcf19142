"""What the charts of a page are drawn from: every sample, in its metric's unit. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from farm.core.result import CellResult, PerformanceReport
from farm.reports.summary import Row

#: Digits of a drawn number: more than a screen shows.
_DIGITS = 5


def samples(result: CellResult) -> list[dict[str, Any]]:
    """The samples of a cell, metric by metric.

    Returns:
        For each metric its name, unit, median, interval, and points of (seconds since the job's
        start, value, launch, repetition, 1 for the baseline's arm).
    """
    return [_metric(report) for report in result.performance if report.samples]


def lines(result: CellResult) -> list[dict[str, Any]]:
    """Charts of lines: each metric over the nights, heat and clocks over the cell's launches.

    Returns:
        For each its title, unit and what x is, and lines of (name, points of (x, y, label)); a
        point whose number is missing has y None.
    """
    found = [
        _lines(
            f"{trend.metric} over {len(trend.runs)} nights",
            trend.unit,
            "night",
            {trend.metric: list(enumerate(trend.medians))},
            trend.runs,
        )
        for trend in result.trend
    ]
    states = result.launches
    heat: dict[str, list[tuple[float, float | None]]] = {}
    for state in states:
        if state.battery_c is not None:
            heat.setdefault("battery", []).append((state.t_s, state.battery_c))
        if state.hottest is not None:
            name, degrees = state.hottest
            heat.setdefault(name, []).append((state.t_s, degrees))
    clocks: dict[str, list[tuple[float, float | None]]] = {}
    for state in states:
        for clock in state.clocks:
            for end, khz in (("highest", clock.highest_khz), ("lowest", clock.lowest_khz)):
                clocks.setdefault(f"{clock.name} {end}", []).append((state.t_s, khz / 1000))
    x = "s since the first launch"
    if heat:
        found.append(_lines("temperature", "°C", x, heat))
    if clocks:
        found.append(_lines("ceiling of the clocks", "MHz", x, clocks))
    return found


def _lines(
    title: str,
    unit: str,
    x: str,
    named: Mapping[str, Sequence[tuple[float, float | None]]],
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    return {
        "title": title,
        "unit": unit,
        "x": x,
        "lines": [
            [
                name,
                [
                    [_short(at), _short(value), labels[n] if labels else ""]
                    for n, (at, value) in enumerate(points)
                ],
            ]
            for name, points in named.items()
            if points
        ],
    }


def speeds(results: Sequence[CellResult], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Medians with their intervals of every warm metric, cell by cell.

    Returns:
        For each metric its name and unit, and points of (number of the cell, label, median, low,
        high, trust); low and high are None without an interval.
    """
    found: dict[tuple[str, str], list[list[Any]]] = defaultdict(list)
    for n, (result, row) in enumerate(zip(results, rows, strict=True)):
        for report in result.performance:
            if report.regime == "warm" and report.median is not None:
                low, high = report.ci95 or (None, None)
                label = f"{row.device} · {row.model} · {row.recipe}"
                point = [n, label, *map(_short, (report.median, low, high)), report.trust]
                found[report.metric, report.unit].append(point)
    order = sorted(found, key=lambda key: (key[1] == "s", key[0]))
    return [{"metric": key[0], "unit": key[1], "rows": found[key]} for key in order]


def _metric(report: PerformanceReport) -> dict[str, Any]:
    low, high = report.ci95 or (None, None)
    return {
        "metric": report.metric,
        "regime": report.regime.replace("_", " "),
        "unit": report.unit,
        "median": _short(report.median),
        "low": _short(low),
        "high": _short(high),
        "points": [
            [_short(s.t_s), _short(s.value), s.launch, s.rep, int(s.arm == "baseline")]
            for s in report.samples
        ],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
