"""All nights on one page: trend of each metric, levels that moved, verdicts, the gate's own errors.

One file without any outside request, as report.html. Numbers of nights are drawn, never judged.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from farm.core.nights import SelfCheck
from farm.core.rules.verdict import EXIT_FAILED, EXIT_OK
from farm.reports.nights import rates
from farm.reports.page import template
from farm.state.history import Night, PastRun

#: Runs of one config that are listed; all of them are drawn.
_LISTED = 10
#: Outcomes of cells that stand before the others.
_FIRST = ("failed", "errored", "inconclusive", "unknown", "skipped", "waived")


@dataclass(frozen=True, slots=True)
class Trend:
    """One warm metric of one cell over the nights, oldest first."""

    nights: Sequence[Night]
    #: Latest against the middle of the nights before; None where one is missing or not trusted.
    change: float | None
    #: Run in which the cell began to fail; empty where it isn't failing.
    red_since: str
    #: Changes of level: share, and the first run of the new level.
    moved: tuple[tuple[float, str], ...]

    @property
    def last(self) -> Night:
        """The newest night."""
        return self.nights[-1]


def render(
    runs: Sequence[PastRun],
    trends: Sequence[Trend],
    checks: Mapping[str, SelfCheck],
    outcomes: Mapping[str, Mapping[str, str]],
) -> str:
    """Render the page.

    Args:
        runs: Newest first.
        trends: Of every cell and metric.
        checks: By config name: what the gate was tried on; a config that never tried it is missing.
        outcomes: By config name: how each cell of its newest run ended, with a number or without.
    """
    newest: dict[str, str] = {}
    for run in runs:
        newest.setdefault(run.name, run.run_id)

    def stale(trend: Trend) -> bool:
        """Whether the newest run has no such number: then the last one is of an older run."""
        return trend.last.run_id != newest[trend.last.name]

    def outcome(trend: Trend) -> str:
        """How the cell ended in the newest run; nothing is said of a run that hadn't it."""
        now = outcomes.get(trend.last.name, {}).get(trend.last.cell_id, "")
        return now or ("unknown" if stale(trend) else trend.last.outcome or "unknown")

    #: How pressing each cell is, by the most pressing of its numbers.
    ranks: dict[tuple[str, str], int] = {}
    for trend in trends:
        cell = trend.last.name, trend.last.cell_id
        ranks[cell] = min(ranks.get(cell, len(_FIRST)), _rank(outcome(trend)))

    def place(trend: Trend) -> tuple[str, int, str, bool, str]:
        last = trend.last
        return (
            last.name,
            ranks[last.name, last.cell_id],
            last.cell_id,
            last.unit == "s",
            last.metric,
        )

    ordered = sorted(trends, key=place)
    numbers = {id(trend): n for n, trend in enumerate(ordered)}
    configs = [
        {
            "name": name,
            "runs": [run for run in runs if run.name == name],
            "gate": rates(checks[name]) if name in checks else "",
            "cells": [
                (cell_id, template.anchor(f"{name}-{cell_id}"), list(found))
                for cell_id, found in groupby(
                    (trend for trend in ordered if trend.last.name == name),
                    key=lambda trend: trend.last.cell_id,
                )
            ],
            "numberless": [
                (cell_id, how)
                for cell_id, how in outcomes.get(name, {}).items()
                if (name, cell_id) not in ranks
            ],
        }
        for name in dict.fromkeys(run.name for run in runs)
    ]
    values = {
        "configs": configs,
        "count": len(runs),
        "listed": _LISTED,
        "number_of": lambda trend: numbers[id(trend)],
        "tone": _tone,
        "outcome": outcome,
        "stale": stale,
    }
    data = {"nights": [_drawn(trend) for trend in ordered]}
    return template.page("dashboard.html.j2", f"farm: {len(runs)} nights", values, data)


def _rank(outcome: str) -> int:
    return _FIRST.index(outcome) if outcome in _FIRST else len(_FIRST)


def _tone(run: PastRun) -> str:
    return {EXIT_OK: "passed", EXIT_FAILED: "failed"}.get(run.exit_code, "inconclusive")


def _drawn(trend: Trend) -> dict[str, Any]:
    """What the page's script draws: times in ms since 1970, one point a night with a number."""
    firsts = {run_id for _share, run_id in trend.moved}
    return {
        "metric": trend.last.metric,
        "unit": trend.last.unit,
        "points": [
            [_ms(n.started_at), n.median, n.low, n.high, n.trust, n.run_id]
            for n in trend.nights
            if n.median is not None
        ],
        "moved": [_ms(n.started_at) for n in trend.nights if n.run_id in firsts],
        "missing": sum(n.median is None for n in trend.nights),
    }


def _ms(stamp: str) -> float:
    return datetime.datetime.fromisoformat(stamp).timestamp() * 1e3
