"""Runs of many simulated devices as the live view shows them, and its expected screens.

`python -m tests.unit.ui.screening` writes the screens anew; with a number of devices it shows
theirs in this terminal, until it is ended.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from farm.core.events import JobFinished, JobStarted
from farm.core.view import (
    CellDone,
    DeviceNote,
    RunStarted,
    TaskFinished,
    TaskProgress,
    TaskStarted,
    ViewEvent,
)
from farm.run import control
from farm.ui.live import LiveView
from farm.ui.screen import draw
from farm.ui.view import RunView, update
from tests.unit.core.builders import attempt_id
from tests.unit.reports.builders import results
from tests.unit.ui.scenes import EXPORT, cell_id, lost, progress

FOLDER = Path(__file__).with_name("screens")
SIZES = ((80, 24), (120, 40), (200, 60))
COUNTS = (1, 8, 60, 1000)
#: The moment of every screen, seconds; what happened before it happened at round times.
NOW = 500.0
_MEBI = 1 << 20


def names(count: int) -> tuple[str, ...]:
    """Names such as racks have: long, and different at their ends."""
    return tuple(f"rack{n // 20 + 1}-pixel-{n % 20 + 1:02d}" for n in range(count))


def events(count: int) -> Iterator[tuple[float, ViewEvent]]:
    """What happened so far, with its moments: each tenth of the devices in another state."""
    devices = names(count)
    cells = tuple((cell_id(device), device) for device in devices)
    yield 100.0, RunStarted("20260102-x", "night-llama-q4", cells, "runs/x")
    if count > 1:
        yield 100.0, TaskStarted("export", EXPORT, 400.0)
        yield 110.0, TaskProgress("export", EXPORT, "lower", 5, 6, 10.0, "layer 17 of 30")
        yield 100.0, TaskStarted("export", "qwen3-0.6b/xnnpack-8da4w", None)
        yield 101.0, TaskStarted("reference", EXPORT)
        yield 130.0, TaskFinished("reference", EXPORT, 29.0, cache_hit=False)
    for n, device in enumerate(devices):
        at = 150.0 + n % 7
        if n % 10 == 9:
            continue  # its turn hasn't come
        yield at, JobStarted(attempt_id(cell_id(device)), device, "t")
        yield from ((at + 10, event) for event in _of(device, n))


def _of(device: str, n: int) -> Iterator[ViewEvent]:
    done = results()[0]
    match n % 10:
        case 0 | 1 | 2:
            measured = {
                "speeds": (("pp128", 400.0 + n, 0.012), ("tg64", 80.4 + n % 7, 0.004)),
                "budget": (60.0 + n % 50, 600.0),
                "heat": (36.4, 45.0),
            }
            yield progress(device, "measure", 12, 34, "launches", rate=("pp128", 400.0 + n))
            yield progress(
                device, "measure", 13, 34, "launches", rate=("tg64", 80.4 + n % 7),
                **(measured if n % 10 else {}),
            )  # fmt: skip
        case 3:
            yield progress(device, "deploy", 0, 105 * _MEBI, "bytes")
            yield progress(device, "deploy", (20 + n % 50) * _MEBI, 105 * _MEBI, "bytes")
        case 4:
            reason = "held by ann@desk until 14:00, 35 min left: new battery; waits up to 5 min"
            yield progress(device, "lease", detail=reason)
        case 5:
            reason = "battery 44.1 °C, wanted 37 °C: waits up to 10 min"
            yield progress(device, "cooldown", detail=reason)
        case 6:
            yield progress(device, "check", 128, 256, "tokens", detail="decode")
        case 7:
            yield JobFinished(attempt_id(cell_id(device)), device, "t", None, None)
            own = replace(done.device, name=device)
            yield CellDone(replace(done, cell_id=cell_id(device), device=own))
        case 8:
            yield lost(device)
            yield DeviceNote(device, f"{device}: the cable was pulled; reconnect was tried twice")


def screen(count: int, width: int, height: int) -> str:
    """The screen as text."""
    view = RunView()
    for at, event in events(count):
        view = update(view, event, at)
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(draw(view, NOW, height=height - 1, width=width), end="")
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def file_of(count: int, width: int, height: int) -> Path:
    """Where a screen is kept."""
    return FOLDER / f"{width}x{height}-{count}.txt"


def _show(count: int) -> None:
    moment = [NOW]

    def cancel(folder: str, cell: str) -> None:
        control.cancel(Path(folder), cell, "a test")

    with LiveView(
        sys.stdout, cancel=cancel, terminal=sys.stdin, monotonic=lambda: moment[0]
    ) as view:
        for at, event in events(count):
            moment[0] = at
            view.emit(event)
        moment[0] = NOW
        threading.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:]:
        _show(int(sys.argv[1]))
    for count in COUNTS:
        for width, height in SIZES:
            file_of(count, width, height).write_text(screen(count, width, height))
