from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from farm.core.events import JobStarted
from farm.core.view import TaskStarted
from farm.ui.live import MAX_ROWS, LiveView, draw
from farm.ui.view import RunView, update
from tests.unit.core.builders import attempt_id
from tests.unit.ui.scenes import EXPORT, cell_id, lost, progress, script, stage, started


def text(view: RunView, now: float = 110.0, *, rows: int = MAX_ROWS, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, height=80, force_terminal=False)
    console.print(draw(view, now, rows=rows, width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def fold(*events: object) -> RunView:
    view = RunView()
    for event in events:
        view = update(view, event, 100.0)  # type: ignore[arg-type]
    return view


def test_tasks_and_devices_have_rows() -> None:
    shown = text(
        fold(
            started(("local", "s24", "s23")),
            TaskStarted("export", EXPORT, 90.0),
            stage("quantise", 3),
            JobStarted(attempt_id(cell_id("local")), "local", "t"),
            progress("local", "measure", 1, 3, "launches", rate=("tg32", 80.4)),
            progress("s24", "deploy", 0, 105 << 20, "bytes"),
            progress("s24", "deploy", 50 << 20, 105 << 20, "bytes"),
        )
    )
    lines = shown.splitlines()
    assert lines[0].split() == ["llama-q4", "0:10", "0/3", "cells", "1", "waiting"]
    export = next(line for line in lines if line.startswith("export"))
    assert "quantise 3/6" in export
    assert "0:10 of about 1:30" in export
    local = next(line for line in lines if line.startswith("local"))
    assert "measure 1/3 launches" in local
    assert "tg32 80.4 tok/s" in local
    s24 = next(line for line in lines if line.startswith("s24"))
    assert "deploy 50 MiB of 105 MiB" in s24
    assert "5 MiB/s, 0:11 left" in s24


def test_ended_cells_and_failed_attempts_are_marked() -> None:
    shown = text(fold(*script()))
    assert "✓ 1 passed" in shown
    assert "✗ 1 failed" in shown
    assert "attempt failed" in text(fold(started(), progress("s24", "deploy"), lost("s24")))


def test_rows_are_capped_and_the_rest_is_counted() -> None:
    names = tuple(f"sim{n}" for n in range(1000))
    view = fold(started(names), *(progress(name, "check") for name in names))
    shown = text(view, rows=20)
    assert len(shown.splitlines()) == 2 + 20 + 1
    assert "+ 980 more devices: 980 check" in shown
    assert [line.split()[0] for line in shown.splitlines()[2:5]] == ["sim0", "sim1", "sim2"]


def test_forty_rows_are_drawn_fast_enough_for_four_frames_a_second() -> None:
    names = tuple(f"sim{n}" for n in range(1000))
    view = fold(started(names), *(progress(name, "check", 1, 2) for name in names))
    text(view)
    begun = time.process_time()
    text(view)
    assert time.process_time() - begun < 0.25


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    view = fold(
        started(("a" * 60, "b")), TaskStarted("export", EXPORT * 3), progress("a" * 60, "x" * 90)
    )
    assert max(len(line.rstrip()) for line in text(view, width=width).splitlines()) <= width


def test_markup_and_escapes_of_devices_are_plain_text() -> None:
    shown = text(fold(started(), progress("[red]x\x1b[2J", "check", detail="[bold]y\x07")))
    assert "[red]x" in shown
    assert "[bold]y" in shown
    assert "\x1b[2J" not in shown


def test_the_view_starts_and_ends_cleanly_and_keeps_what_went_wrong() -> None:
    stream = io.StringIO()
    with LiveView(stream) as view:
        for event in script():
            view.emit(event)
    assert "failed" in stream.getvalue()
    assert "host_pte -> device_pte" in stream.getvalue()
