from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from farm.core.events import JobStarted
from farm.core.view import Preparing, TaskStarted
from farm.ui.live import LiveView
from farm.ui.screen import draw, ordered
from farm.ui.steer import Steering, pressed
from farm.ui.view import RunView, update
from tests.unit.core.builders import attempt_id
from tests.unit.ui.scenes import EXPORT, cell_id, lost, progress, script, stage, started


def text(
    view: RunView, now: float = 110.0, *, height: int = 40, width: int = 120, **more: Any
) -> str:
    console = Console(file=io.StringIO(), width=width, height=80, force_terminal=False)
    console.print(draw(view, now, height=height, width=width, **more), end="")
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
    lines = [line.strip() for line in shown.splitlines()]
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
    shown = text(view, height=23)
    assert len(shown.splitlines()) == 2 + 20 + 1
    assert "+ 980 more devices: 980 check" in shown
    assert [line.split()[0] for line in shown.splitlines()[2:5]] == ["sim0", "sim1", "sim2"]


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


def test_before_the_plan_it_says_what_goes_on() -> None:
    view = fold(Preparing("starting Ray"))
    assert text(view, 103.0).splitlines()[0].split() == ["starting", "Ray", "0:03"]
    assert "starting Ray" not in text(fold(Preparing("starting Ray"), started()))


def test_a_narrow_terminal_keeps_rate_and_reason() -> None:
    reason = "held by ann until 14:00: new fan"
    view = fold(
        started(("a-device-with-a-long-name", "s24")),
        progress("s24", "measure", 12, 34, "launches", rate=("tg128", 123.4)),
        progress("a-device-with-a-long-name", "lease", detail=reason),
    )
    shown = text(view, width=80)
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "tg128 123 tok/s" in shown
    assert reason in shown
    assert "measure 12/34" in shown


def test_what_computes_stands_before_what_waits() -> None:
    names = tuple(f"sim{n}" for n in range(30))
    view = fold(
        started(names),
        *(progress(name, "lease") for name in names[:20]),
        *(progress(name, "measure", 1, 4, "launches") for name in names[20:]),
    )
    lines = text(view, height=13).splitlines()
    assert all("measure" in line for line in lines[2:12])
    assert "+ 20 more devices: 20 lease" in lines[12]


def test_a_reason_that_does_not_fit_gets_lines_of_its_own() -> None:
    reason = "battery at 44 °C, wanted 37 °C: waits for up to 600 s, then the device is given up"
    view = fold(started(("pixel8",)), progress("pixel8", "cooldown", detail=reason))
    lines = text(view, width=60).splitlines()
    assert " ".join(" ".join(lines[3:]).split()) == reason
    assert len(text(view, width=200).splitlines()) == 3


def test_what_happened_last_stands_below_where_there_is_room() -> None:
    view = fold(started(), progress("local", "check"))
    recent = [(104.0, "export x: done in 84 s")]
    assert "0:04  export x: done in 84 s" in text(view, recent=recent)
    assert "done in 84 s" not in text(view, height=4, recent=recent)


def test_cells_that_wait_for_an_export_say_so() -> None:
    view = fold(started(("a", "b")), TaskStarted("export", EXPORT, 90.0))
    assert "2 cells wait for an export" in text(view)


def after(view: RunView, *keys: str) -> tuple[Steering, str]:
    steering, cell = Steering(), ""
    for key in keys:
        steering, cell = pressed(steering, key, ordered(view, steering))
    return steering, cell


def crowd() -> RunView:
    names = tuple(f"sim{n}" for n in range(30))
    rated = (
        progress(n, "measure", 1, 4, "launches", rate=("tg64", 10.0 + i))
        for i, n in enumerate(names)
    )
    return fold(started(names), *rated)


def test_keys_filter_sort_and_choose() -> None:
    view = crowd()
    filtered, _ = after(view, "/", "s", "i", "m", "2", "9", "x", "backspace", "enter")
    shown = text(view, steering=filtered, steered=True)
    assert [line for line in shown.splitlines() if "tg64" in line] == [
        line for line in shown.splitlines() if line.startswith(" sim29 ")
    ]
    assert "29 devices don't match the filter" in shown
    assert "filter: sim29" in shown.splitlines()[-1]
    cleared, _ = after(view, "/", "9", "enter", "escape")
    assert cleared.words == ""
    by_rate, _ = after(view, "s", "s")
    assert text(view, steering=by_rate).splitlines()[2].split()[0] == "sim29"
    chosen, _ = after(view, *["down"] * 28, "up")
    assert chosen.chosen == "sim26"
    assert ">sim26" in text(view, steering=chosen, height=12)


def test_keys_show_the_log_of_a_cell_and_help() -> None:
    view = crowd()
    steering, _ = after(view, "down", "l")
    events = [(101.0, progress("sim0", "measure", 1, 4, "launches", rate=("tg64", 80.4)))]
    shown = text(view, steering=steering, log=events)
    assert "0:09 ago" in shown
    assert "tg64 80.4 tok/s" in shown
    assert "sim1 " not in shown
    helped, _ = after(view, "?")
    assert all(key in text(view, steering=helped) for key in ("filter", "sort", "log", "cancel"))
    assert after(view, "?", "?")[0] == Steering()


def test_a_cell_is_cancelled_after_a_yes_alone() -> None:
    view = crowd()
    asked, cell = after(view, "down", "c")
    assert (asked.asks, cell) == (cell_id("sim0"), "")
    assert f"cancel {cell_id('sim0')}? y or n" in text(view, steering=asked)
    assert after(view, "down", "c", "n")[1] == ""
    assert after(view, "down", "c", "y")[1] == cell_id("sim0")
    assert "choose a device" in after(view, "c")[0].said
