"""report.html: one file without any outside request, for people.

What needs a look comes first. Text of devices and models is stripped of control characters and
escaped; the page's policy permits its own scripts only, so a mistake there would still run nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from farm.core.result import CellResult, Report
from farm.reports import attention, html_nights, nights, pareto, points
from farm.reports.answers import no_answer
from farm.reports.page import template
from farm.reports.recipes import RecipeGroup, compare_recipes
from farm.reports.summary import (
    HEADERS,
    Row,
    artifact_size,
    device_stage,
    export_notes,
    rows,
    unreadable,
)
from farm.reports.words import METHODS, apart, plus_minus, visible_change

#: Cells up to which the details of each stand in the page; beyond, they are unpacked when opened.
INLINE_CELLS = 200
#: Cells of one group that need a look and aren't folded away.
FIRST_CELLS = 20
#: Devices whose recipes are drawn against each other.
FRONTS = 12
MARKS = {"passed": "✓", "failed": "✗", "inconclusive": "?", "errored": "!", "skipped": "-",
         "waived": "✗"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """One cell as the page shows it."""

    n: int
    anchor: str
    result: CellResult
    row: Row
    #: Numbers that its columns are sorted by, in the order of HEADERS; None: by the text.
    keys: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """What the head of the page says of one side of the run."""

    name: str
    tone: str
    text: str


def render(report: Report) -> str:
    """Render the page."""
    cells = _shown(report)
    inline = len(cells) <= INLINE_CELLS
    details = [template.render("cell.html.j2", {"cell": cell, **_WORDS}) for cell in cells]
    data = {
        "cells": [
            {"charts": points.samples(cell.result), "lines": points.lines(cell.result)}
            | ({} if inline else {"html": detail})
            for cell, detail in zip(cells, details, strict=True)
        ],
        "speeds": points.speeds(report.results, [cell.row for cell in cells]),
    }
    fronts = [group for group in compare_recipes(report) if pareto.drawable(group)]
    values = {
        "report": report,
        "sides": sides(report),
        "tone": tone(report),
        "groups": _groups(report, cells),
        "most": FIRST_CELLS,
        "rerun": lambda result: attention.rerun_command(report, result),
        "cells": cells,
        "outcomes": Counter(cell.row.outcome for cell in cells),
        "details": details if inline else None,
        "matrix": _matrix(cells),
        "pareto": pareto.panels(fronts[:FRONTS]),
        "fronts_left": max(0, len(fronts) - FRONTS),
        "not_drawn": _not_drawn(report, fronts),
        "headers": HEADERS,
        "config": json.dumps(report.config, indent=1, ensure_ascii=False),
        **_WORDS,
    }
    return template.page("report.html.j2", f"{report.name}: {report.verdict_line}", values, data)


def _not_drawn(report: Report, fronts: Sequence[RecipeGroup]) -> list[str]:
    """Which pictures the page lacks, and why: an absent one never reads as a good one."""
    found = []
    if not any(result.trend for result in report.results):
        found.append("trend: no earlier night of this config is known on this host")
    if not any(result.launches for result in report.results):
        found.append("temperature and clocks: no device told them")
    if not fronts:
        found.append("recipes against each other: no device has numbers of two recipes")
    if report.self_check is None:
        found.append("the gate's own error rates: the config has no self_check")
    found.append("where the time of a token goes: `farm profile CONFIG` writes a page of its own")
    return found


def _groups(
    report: Report, cells: Sequence[Shown]
) -> list[tuple[str, str, list[tuple[Shown, list[attention.Finding]]]]]:
    """What needs a look: (title, group, cells with what was found of each)."""
    places = {id(cell.result): cell for cell in cells}
    groups = []
    for group, entries in groupby(attention.findings(report), key=lambda found: found.group):
        by_cell = groupby(entries, key=lambda found: id(found.result))
        found = [(places[key], list(of_cell)) for key, of_cell in by_cell]
        groups.append((attention.TITLES[group], str(group), found))
    return groups


def tone(report: Report) -> str:
    """Colour of the verdict: green only where the run passed and some speed of it counts."""
    if report.exit_code == 1:
        return "failed"
    open_ones = [side for side in sides(report)[:2] if side.tone in ("failed", "inconclusive")]
    return "passed" if report.exit_code == 0 and not open_ones else "inconclusive"


def sides(report: Report) -> tuple[Side, Side, Side]:
    """Correctness, speed and alarms, each for itself: one of them never stands for another."""
    decided = Counter(result.correctness_decision for result in report.results)
    right = f"{decided['passed']} of {len(report.results)} cells are right"
    if decided["failed"]:
        right += f", {decided['failed']} wrong"
    everything = decided["passed"] == len(report.results) > 0
    correctness = "failed" if decided["failed"] else "passed" if everything else "inconclusive"
    count = len(report.alarms)
    words = f"{count or 'no'} alarm{'' if count == 1 else 's'}"
    return (
        Side("Correctness", correctness, right),
        _speed(report),
        Side("Alarms", "inconclusive" if count else "passed", words),
    )


def _speed(report: Report) -> Side:
    s = report.summary
    timed = [[p.trust for p in r.performance if p.regime == "warm"] for r in report.results]
    timed = [found for found in timed if found]
    counts = sum("ok" in found or "unverified" in found for found in timed)
    text = f"{s.speed_decided} of {s.speed_gated} decided" if s.speed_gated else "not gated"
    text += f", {counts} of {len(timed)} timed cells have numbers that count"
    if any(result.speed_decision == "failed" for result in report.results):
        return Side("Speed", "failed", text)
    if s.speed_decided < s.speed_gated or counts < len(timed):
        return Side("Speed", "inconclusive", text)
    return Side("Speed", "passed" if s.speed_gated else "plain", text)


def _shown(report: Report) -> list[Shown]:
    seen: Counter[str] = Counter()
    found = []
    for n, (result, row) in enumerate(zip(report.results, rows(report), strict=True)):
        name = f"cell-{template.anchor(result.cell_id)}"
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name}--{seen[name]}"
        found.append(Shown(n, unique, result, row, _keys(result)))
    return found


def _keys(result: CellResult) -> tuple[float | None, ...]:
    warm = [p for p in result.performance if p.regime == "warm"]

    def first(prefix: str) -> float | None:
        return next((p.median for p in warm if p.metric.startswith(prefix)), None)

    stage = device_stage(result.correctness.stages) if result.correctness else None
    divergence = None if stage is None else 0.0 if stage.bit_equal else stage.kl_mean
    measured = (divergence, first("pp"), first("tg"), first("ttft"), result.memory.peak_rss_bytes)
    return (None, None, None, None, *measured, None)


def _matrix(cells: Sequence[Shown]) -> dict[str, Any] | None:
    """Cells by model and recipe against devices; None where that is a single line."""
    devices = list(dict.fromkeys(cell.row.device for cell in cells))
    names = list(dict.fromkeys((cell.row.model, cell.row.recipe) for cell in cells))
    if min(len(devices), len(names)) < 2:
        return None
    places: dict[tuple[tuple[str, str], str], list[Shown]] = {}
    for cell in cells:
        places.setdefault(((cell.row.model, cell.row.recipe), cell.row.device), []).append(cell)
    return {"devices": devices, "names": names, "places": places}


_WORDS = {
    "marks": MARKS,
    "methods": METHODS,
    "apart": apart,
    "rate": attention.rate,
    "plus_minus": plus_minus,
    "visible_change": visible_change,
    "artifact_size": artifact_size,
    "export_notes": export_notes,
    "unreadable": unreadable,
    "no_answer": no_answer,
    "nights": nights.changes,
    "sustained": nights.sustained,
    "self_check": nights.self_check,
    "curve": html_nights.curve,
}
