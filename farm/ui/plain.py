"""A run as plain lines, for logs and pipes: one line per change of stage, and one every 10 s.

The same events as the live view; no colour, no cursor movement.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.printable import one_line
from farm.core.view import (
    CellDone,
    DeviceNote,
    Preparing,
    RunEnded,
    RunStarted,
    SecondSittings,
    TaskFinished,
    TaskProgress,
    TaskStarted,
    ViewEvent,
)
from farm.reports.words import clock, number, seconds, size, transfer, within
from farm.ui.view import DeviceView, RunView, TaskView, update

HEARTBEAT_S = 10.0

_KIND = {"export": "export", "reference": "reference", "host_run": "host run", "compare": "compare"}


class PlainView:
    """Writes lines to a stream. Use as a context manager; feed it with `emit`."""

    def __init__(
        self,
        stream: TextIO,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], str] = lambda: time.strftime("%H:%M:%S"),
    ) -> None:
        self._stream = stream
        self._monotonic = monotonic
        self._wall = wall
        self._view = RunView()
        self._last = monotonic()
        #: Job, attempt and stage of progress lines.
        self._shown: set[tuple[str, int, str]] = set()
        # Protects the view and the stream: `tick` runs in a thread of its own, since a long
        # stage of an export sends no event for minutes.
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick_until_ended, daemon=True)

    def __enter__(self) -> PlainView:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join()

    def emit(self, event: ViewEvent) -> None:
        """Take an event and write what is new."""
        with self._lock:
            before = self._view
            self._view = update(before, event, self._monotonic())
            line = describe(before, self._view, event)
            if line is not None and not self._shown_before(event):
                self._say(line)
        self.tick()

    def _shown_before(self, event: ViewEvent) -> bool:
        """A job goes back and forth between stages with every launch; each is shown once."""
        if not isinstance(event, JobProgress):
            return False
        key = (event.job_id, event.attempt, event.stage)
        known = key in self._shown
        self._shown.add(key)
        return known

    def tick(self) -> None:
        """Write where the run stands when nothing was written for a while."""
        with self._lock:
            now = self._monotonic()
            due = now - self._last >= HEARTBEAT_S
            begun = bool(self._view.run_id or self._view.tasks or self._view.preparing)
            if due and begun and self._view.line is None:
                self._say(standing(self._view, now))

    def _tick_until_ended(self) -> None:
        while not self._ended.wait(1.0):
            self.tick()

    def _say(self, line: str) -> None:
        self._last = self._monotonic()
        self._stream.write(f"{self._wall()} {line}\n")
        self._stream.flush()


def describe(before: RunView, after: RunView, event: ViewEvent) -> str | None:
    """Return the line that an event deserves; None when it changes no stage."""
    match event:
        case Preparing():
            return one_line(event.step)
        case RunStarted():
            places = len({place for _, place in event.cells})
            name = one_line(event.name)
            return f"run {event.run_id} ({name}): {len(event.cells)} cells on {places} devices"
        case TaskStarted():
            estimate = f", about {seconds(event.estimate_s)}" if event.estimate_s else ""
            return f"{_KIND.get(event.kind, event.kind)} {one_line(event.name)}: started{estimate}"
        case TaskProgress():
            key = (event.kind, event.name)
            known = before.tasks.get(key)
            same = known is not None and known.stage == event.stage
            return None if same else _task_line(after.tasks[key])
        case TaskFinished():
            return _finished(event)
        case JobStarted():
            attempt = f" (attempt {event.attempt})" if event.attempt > 1 else ""
            return f"{one_line(event.device)}: {one_line(event.job_id)}{attempt}"
        case JobProgress():
            device = before.devices.get(event.device)
            if device is not None and (device.cell, device.stage) == (event.job_id, event.stage):
                return None
            return f"{one_line(event.device)}: {event.stage}{_amount(event)}"
        case JobFinished():
            if event.error is None:
                return None
            return f"{one_line(event.device)}: {one_line(event.error.message, 400)}"
        case DeviceNote():
            return f"{one_line(event.device)}: {one_line(event.text, 400)}"
        case CellDone():
            r = event.result
            reason = f": {one_line(r.reason, 400)}" if r.reason else ""
            done = f"[{len(after.done)}/{len(after.cells)}]"
            return f"{done} {r.outcome} {one_line(r.cell_id)}{reason}"
        case SecondSittings():
            names = one_line(", ".join(event.cell_ids), 400)
            return f"second sitting, side by side with the baseline: {names}"
        case RunEnded():
            return None


def standing(view: RunView, now: float) -> str:
    """One line that says where a run stands."""
    parts = [f"{view.preparing} for {clock(now - view.since)}"] if view.preparing else []
    if view.cells:
        parts.append(f"{len(view.done)}/{len(view.cells)} cells after {clock(now - view.started)}")
    tasks = [task for task in view.tasks.values() if task.running]
    parts += [_task_standing(task, now) for task in tasks[:2]]
    if len(tasks) > 2:
        parts.append(f"{len(tasks) - 2} more tasks")
    busy = [device for device in view.devices.values() if device.cell is not None]
    if len(busy) == 1:
        one = busy[0]
        left_s = one.left_s(now)
        left = "" if left_s is None else f", at most {clock(left_s)} left"
        parts.append(f"{one_line(one.name)}: {_stage(one, now)} {rates(one)}".rstrip() + left)
    elif busy:
        stages = Counter(device.stage for device in busy)
        parts.append("devices: " + ", ".join(f"{n} {stage}" for stage, n in stages.most_common()))
    return "; ".join(parts)


def rates(device: DeviceView, *, tight: bool = False) -> str:
    """What a device gives, and how warm it is: `pp128 400 ±1 %  tg64 80.4 tok/s  36/45 °C`."""
    found = []
    for name in dict.fromkeys((*device.speeds, *device.rates)):
        rate, half = device.speeds.get(name, (device.rates.get(name, 0.0), None))
        found.append(f"{one_line(name)} {number(rate)}" + (f" {within(half)}" if half else ""))
    if found:
        found[-1] += " tok/s"
        if device.heat is not None:
            degrees, limit = device.heat
            found.append(f"{degrees:.0f}{'' if limit is None else f'/{limit:.0f}'} °C")
    if not tight:
        return "  ".join(found)
    return " ".join(found).replace(" ±", "±").replace(" %", "%").replace(" °C", "°")


def _stage(device: DeviceView, now: float) -> str:
    if device.unit != "bytes":
        return f"{device.stage} {device.done}/{device.total}" if device.total else device.stage
    text = f"{device.stage} {size(device.done)} of {size(device.total)}"
    found = device.transfer(now)
    return text if found is None else f"{text}, {transfer(*found)}"


def _task_line(task: TaskView) -> str:
    number = f" {task.index}/{task.count}" if task.count else ""
    detail = f" ({one_line(task.detail, 120)})" if task.detail else ""
    kind = _KIND.get(task.kind, task.kind)
    return f"{kind} {one_line(task.name)}: {one_line(task.stage)}{number}{detail}"


def _task_standing(task: TaskView, now: float) -> str:
    line = f"{_task_line(task)} for {clock(now - task.started)}"
    if task.total_bytes:
        return f"{line}, {size(task.done_bytes or 0)} of {size(task.total_bytes)}"
    return f"{line} of about {clock(task.estimate_s)}" if task.estimate_s else line


def _finished(event: TaskFinished) -> str:
    name = f"{_KIND.get(event.kind, event.kind)} {one_line(event.name)}"
    if event.error is not None:
        return f"{name}: failed after {seconds(event.elapsed_s)}: {one_line(event.error, 400)}"
    if event.cache_hit:
        return f"{name}: from the cache"
    return f"{name}: done in {seconds(event.elapsed_s)}"


def _amount(event: JobProgress) -> str:
    if not event.total:
        return f" ({one_line(event.detail, 120)})" if event.detail else ""
    if event.unit == "bytes":
        return f" {size(event.total)}"
    return f" {event.total} {event.unit}".rstrip()
