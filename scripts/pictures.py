"""Draws the pictures of the README from made-up events and a made-up report: `make pictures`.

The live view is farm's own drawing as SVG; the report is what Chromium shows of a page that farm
renders. Both are the code of now, so that a picture never shows what isn't there.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from farm.core.events import JobStarted
from farm.core.result import Report
from farm.core.view import RunStarted, TaskStarted, ViewEvent
from farm.reports import html
from farm.ui.screen import draw
from farm.ui.view import RunView, update
from tests.unit.core.builders import attempt_id
from tests.unit.reports.builders import report
from tests.unit.ui.scenes import EXPORT, cell_id, progress, stage

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
_DEVICES = ("pixel8", "pixel9", "s23", "s24", "pi5", "orin", "rock5", "local")
_WIDTH = 108


def _measured(
    name: str, done: int, rate: float, half: float, heat: tuple[float, float]
) -> ViewEvent:
    told = {"speeds": (("tg64", rate, half),), "budget": (3.0 * done, 120.0), "heat": heat}
    return progress(name, "measure", done, 34, "launches", **told)


def live() -> str:
    """A run in its third minute, as SVG."""
    cells = tuple((cell_id(name), name) for name in _DEVICES)
    events: list[tuple[float, ViewEvent]] = [
        (0.0, RunStarted("20260102-030405-llama-q4", "llama-q4", cells, "runs/latest")),
        (1.0, TaskStarted("export", EXPORT, 90.0)),
        (40.0, stage("lower", 5, 39.0)),
    ]
    events += [(41.0, JobStarted(attempt_id(cell_id(name)), name, "t")) for name in _DEVICES[:6]]
    megabytes = 105 << 20
    events += [
        (60.0, _measured("pixel8", 9, 21.4, 0.021, (33.0, 37.0))),
        (60.0, _measured("pixel9", 6, 29.8, 0.034, (31.5, 37.0))),
        (60.0, progress("s23", "cooldown", detail="thermal status 1 (waits 571 s at most)")),
        (60.0, progress("s24", "deploy", 61 << 20, megabytes, "bytes")),
        (60.0, _measured("pi5", 3, 8.1, 0.062, (61.0, 70.0))),
        (60.0, progress("orin", "check", 0, 0, detail="logits")),
    ]
    view = RunView()
    for at, event in events:
        view = update(view, event, at)
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(draw(view, 61.0, height=16, width=_WIDTH))
    return console.export_svg(title="farm run configs/llama_q4.yaml", unique_id="farm")


def shown_report() -> Report:
    """The report of the tests, without what a hostile device says there."""
    made = report()
    results = tuple(
        replace(one, correctness=replace(one.correctness, generated_text="Paris."))
        if one.correctness
        else one
        for one in made.results
        if "\x1b" not in one.reason
    )
    return replace(made, results=results, alarms=made.alarms[:1])


def photograph(page: str, to: Path) -> None:
    """Let Chromium draw a page, 1280 wide."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("pictures need chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.html")
        file.write_text(page, encoding="utf-8")
        words = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--window-size=1280,900", "--virtual-time-budget=10000", f"--screenshot={to}",
            f"--user-data-dir={folder}/profile", file.as_uri(),
        ]  # fmt: skip
        subprocess.run(words, check=True, capture_output=True, timeout=300)


def main() -> int:
    """Write both."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "live.svg").write_text(live(), encoding="utf-8")
    photograph(html.render(shown_report()), FOLDER / "report.png")
    sys.stdout.write(f"{FOLDER}: live.svg, report.png\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
