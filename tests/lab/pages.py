"""Reports of many cells for pages; `python -m tests.lab.pages FOLDER` takes pictures of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from farm.commands.side_by_side import page as side_by_side
from farm.core.nights import MetricTrend, SelfCheck, SelfChecked
from farm.core.result import CellResult, Report
from farm.core.telemetry import ClockRange, LaunchState
from farm.reports import html
from tests.lab.browser import Browser
from tests.unit.reports.builders import report

WIDTHS = (1280, 768, 400)


def matrix(count: int) -> Report:
    """A report of `count` cells on twelve devices, with all that a page draws."""
    base = report()
    cells = []
    for n in range(count):
        result = base.results[n % len(base.results)]
        device = replace(result.device, name=f"dev{n % 12:02d}")
        recipe = f"recipe-{n // 12}"
        name = f"model/{recipe}/{device.name}"
        cell = replace(result, device=device, recipe=recipe, cell_id=name)
        cells.append(_with_nights(cell, n) if result.performance else cell)
    checked = SelfChecked("same", "r9", cells[0].cell_id, "PASS", True)
    return replace(base, results=tuple(cells), self_check=SelfCheck((checked,), 30, 30, 1, 4, 0))


def _with_nights(cell: CellResult, n: int) -> CellResult:
    runs = tuple(f"night-{k}" for k in range(6))
    medians = (80.0, 81.5, None, 79.0 + n % 3, 60.2, 61.0)
    states = tuple(
        LaunchState(
            k, 4.0 * k, ("cpu-thermal", 41.0 + 3 * k), 33.0 + k,
            (ClockRange("policy0", 2_400_000, 2_400_000 - 200_000 * k),),
        )
        for k in range(4)
    )  # fmt: skip
    # Recipes differ, so that one is better than another.
    rows = tuple(
        replace(p, median=p.median and p.median * (1 + n // 12 % 5 / 10)) for p in cell.performance
    )
    trend = (MetricTrend("tg32", "tok/s", runs, medians),)
    return replace(cell, trend=trend, launches=states, performance=rows)


def main(folder: Path) -> None:
    """Write pages of 1, 60 and 2,000 cells and their pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {f"cells-{n}": html.render(matrix(n)) for n in (1, 60, 2000)}
    made["two-runs"] = side_by_side(matrix(60), matrix(24))
    with Browser(folder / "profile") as browser:
        for name, text in made.items():
            page = folder / f"{name}.html"
            page.write_text(text)
            print(f"{page}: {page.stat().st_size / 1e6:.2f} MB")
            for width in WIDTHS:
                for dark in (False, True):
                    browser.look(width, dark=dark)
                    browser.open(page)
                    browser.value(
                        "document.querySelector('details.cell')?.setAttribute('open', '')"
                    )
                    browser.value("new Promise((done) => setTimeout(done, 1500))")
                    tone = "dark" if dark else "light"
                    browser.picture(
                        folder / f"{name}-{width}-{tone}.png", whole=name != "cells-2000"
                    )
        print(*browser.complaints, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
