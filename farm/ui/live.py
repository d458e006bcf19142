"""The live view: one row per device and running task, redrawn a few times a second.

Draws farm.ui.view.RunView. Rows are capped, because drawing grows with them (40 rows: about
20 ms) and a terminal shows no more; what is left out is counted.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from farm.core.printable import one_line
from farm.core.view import CellDone, ViewEvent
from farm.reports.words import clock, number, size, transfer
from farm.ui.view import DeviceView, RunView, TaskView, update

REFRESH_HZ = 4
MAX_ROWS = 40

#: Colour of each outcome, here and in tables.
STYLES = {
    "passed": "green",
    "failed": "bold red",
    "inconclusive": "yellow",
    "errored": "red",
    "skipped": "dim",
}
MARKS = {"passed": "✓", "failed": "✗", "inconclusive": "?", "errored": "!", "skipped": "-"}

_DIGITS = re.compile(r"([0-9]+)")

_KIND = {
    "export": "export",
    "reference": "reference",
    "host_run": "host run",
    "canary": "canary",
    "compare": "compare",
}
_STAGES = {
    "start": "waiting",
    "lease": "lease",
    "deploy": "deploy",
    "check": "check",
    "cooldown": "cooldown",
    "measure": "measure",
    "collect": "collect",
    "clean": "clean",
}


class LiveView:
    """Shows a run while it goes on. Use as a context manager; feed it with `emit`.

    `emit` is called from one thread. Rich's own thread draws; it reads one reference to an
    immutable state, so nothing needs a lock.
    """

    def __init__(self, stream: TextIO, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=stream, highlight=False)
        self._monotonic = monotonic
        self._view = RunView()
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_HZ,
            vertical_overflow="crop",
            transient=True,
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def emit(self, event: ViewEvent) -> None:
        """Take an event. A cell that ended badly is printed above the view, to stay."""
        self._view = update(self._view, event, self._monotonic())
        if isinstance(event, CellDone) and event.result.outcome not in ("passed", "skipped"):
            r = event.result
            self._console.print(
                Text.assemble(
                    (f"{MARKS[r.outcome]} {r.outcome} ", STYLES[r.outcome]),
                    one_line(f"{r.cell_id}: {r.reason}", 400),
                )
            )

    def _draw(self) -> RenderableType:
        rows = min(MAX_ROWS, max(4, self._console.height - 6))
        return draw(self._view, self._monotonic(), rows=rows, width=self._console.width)


def draw(view: RunView, now: float, *, rows: int = MAX_ROWS, width: int = 100) -> RenderableType:
    """Draw a view as it stands at `now`, with at most `rows` rows of tasks and devices."""
    tasks = sorted(
        (t for t in view.tasks.values() if t.running), key=lambda t: (t.started, t.kind, t.name)
    )
    task_rows = tasks[: max(1, rows // 2)]
    # Devices at work first: what waits or is done is of less interest when rows are short.
    devices = sorted(view.devices.values(), key=lambda d: (d.cell is None, _natural(d.name)))
    device_rows = devices[: max(1, rows - len(task_rows))]
    parts: list[RenderableType] = [_headline(view, now)]
    if task_rows or device_rows:
        table = _grid(width)
        for task in task_rows:
            table.add_row(*_task_row(task, now))
        for device in device_rows:
            table.add_row(*_device_row(device, view, now))
        parts += [Text(), table]
    if len(tasks) > len(task_rows):
        parts.append(Text(f"+ {len(tasks) - len(task_rows)} more tasks", "dim"))
    parts += _rest_of_devices(devices[len(device_rows) :])
    return Group(*parts)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which `sim2` comes before `sim10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(name)]


def _headline(view: RunView, now: float) -> Text:
    if not view.run_id:
        running = sum(task.running for task in view.tasks.values())
        return Text(f"{running} running, {len(view.tasks) - running} done", "bold")
    planned, done = len(view.cells), len(view.done)
    text = Text.assemble(
        (one_line(view.name, 40), "bold"),
        (f"  {clock(now - view.started)}", "dim"),
        f"  {done}/{planned} cells",
    )
    for outcome, count in view.outcomes().items():
        text.append(f"  {MARKS[outcome]} {count} {outcome}", STYLES[outcome])
    busy = sum(device.cell is not None for device in view.devices.values())
    waiting = planned - done - busy
    if waiting > 0:
        text.append(f"  {waiting} waiting", "dim")
    return text


def _grid(width: int) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(16, width // 3))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(12, width // 4))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(no_wrap=True, justify="right")
    return table


def _task_row(task: TaskView, now: float) -> tuple[RenderableType, ...]:
    label = Text.assemble((f"{_KIND.get(task.kind, task.kind)} ", "magenta"), one_line(task.name))
    stage = f"{task.stage} {task.index}/{task.count}" if task.count else task.stage
    return (
        label,
        Text(one_line(stage)),
        _bar(task.share(now)),
        Text(_task_detail(task), "dim"),
        Text(_task_time(task, now), "dim"),
    )


def _task_detail(task: TaskView) -> str:
    if task.total_bytes:
        return f"{size(task.done_bytes or 0)} of {size(task.total_bytes)}"
    return one_line(task.detail, 200)


def _task_time(task: TaskView, now: float) -> str:
    elapsed = clock(now - task.started)
    if task.estimate_s:
        return f"{elapsed} of about {clock(task.estimate_s)}"
    return elapsed


def _device_row(device: DeviceView, view: RunView, now: float) -> tuple[RenderableType, ...]:
    stage, style = _stage(device, view)
    label = Text(one_line(device.name), "bold" if device.cell else "dim")
    if device.cell:
        label.append(f"  {one_line(device.cell).split(':')[0]}", "dim not bold")
    text = _transfer(device, now) or _rates(device) or one_line(device.error or device.detail, 200)
    return (
        label,
        Text(stage, style),
        _bar(device.share) if device.cell else Text(),
        Text(text, "red" if device.error else "cyan"),
        Text(clock(now - device.since) if device.cell else "", "dim"),
    )


def _stage(device: DeviceView, view: RunView) -> tuple[str, str]:
    if device.cell is None:
        if device.error:
            return "attempt failed", "red"
        counts = Counter(c.outcome for c in view.done.values() if c.device == device.name)
        counted = " ".join(f"{MARKS[outcome]}{n}" for outcome, n in sorted(counts.items()))
        return f"idle {counted}".strip(), "dim"
    stage = _STAGES.get(device.stage, one_line(device.stage, 20))
    if device.unit == "bytes" and device.total:
        stage += f" {size(device.done)} of {size(device.total)}"
    elif device.total:
        stage += f" {device.done}/{device.total} {device.unit}".rstrip()
    if device.attempt > 1:
        stage += f" (attempt {device.attempt})"
    return stage, "blue"


def _transfer(device: DeviceView, now: float) -> str:
    found = device.transfer(now)
    return "" if found is None else transfer(*found)


def _rates(device: DeviceView) -> str:
    return "  ".join(f"{name} {number(rate)} tok/s" for name, rate in device.rates.items())


def _bar(share: float | None) -> RenderableType:
    if share is None:
        return Text("·" * 14, "dim")
    return ProgressBar(total=1.0, completed=share, width=14)


def _rest_of_devices(devices: Sequence[DeviceView]) -> list[RenderableType]:
    if not devices:
        return []
    stages = Counter(d.stage if d.cell else "idle" for d in devices)
    counted = ", ".join(f"{count} {stage}" for stage, count in stages.most_common())
    return [Text(f"+ {len(devices)} more devices: {counted}", "dim")]
