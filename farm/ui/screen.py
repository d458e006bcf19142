"""What the live view shows: a pure function of the state, the moment and the terminal's size.

What works stands before what waits; what there is no room for is counted by state.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial

from rich.cells import cell_len

from farm.core.events import JobProgress
from farm.core.printable import one_line
from farm.core.view import ViewEvent
from farm.reports.words import clock, number, size, transfer
from farm.ui.lines import WIDE, Line, Lines, Row, cut, laid_out, wrapped
from farm.ui.plain import describe, rates
from farm.ui.steer import HELP, Steering, listed
from farm.ui.view import WAITING, DeviceView, RunView, TaskView, update

#: Colour of each outcome, here and in tables.
STYLES = {
    "passed": "green",
    "failed": "bold red",
    "inconclusive": "yellow",
    "errored": "red",
    "skipped": "dim",
}
MARKS = {"passed": "✓", "failed": "✗", "inconclusive": "?", "errored": "!", "skipped": "-"}

#: Stages in which a device computes nothing for us.
_WAITS = frozenset({"", "start", "lease", "cooldown"})
#: Lines that count what there is no room for, on a narrow terminal.
_COUNTED = 2
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


def draw(
    view: RunView,
    now: float,
    *,
    height: int = 40,
    width: int = 100,
    steering: Steering = Steering(),  # noqa: B008  # frozen
    recent: Sequence[tuple[float, str]] = (),
    log: Sequence[tuple[float, ViewEvent]] = (),
    steered: bool = False,
) -> Lines:
    """Draw a view as it stands at `now`.

    Args:
        view: The run.
        now: The moment, seconds.
        height: Lines at most.
        width: Cells of a line.
        steering: What a person chose.
        recent: What happened last, as (moment, line).
        log: Events of the chosen device.
        steered: Whether keys do something.
    """
    foot = _foot(steering, steered=steered)
    most = height - 2 - bool(foot)
    if steering.shows == "help":
        lines: list[Line] = [[(f"  {key:<10}", "bold"), (what, "")] for key, what in HELP]
    elif steering.shows == "log":
        lines = _log_lines(log, view, now, most)
    else:
        lines = _table(view, now, most, width, steering, recent)
    return Lines(
        [_headline(view, now, width), *([[], *lines] if lines else []), *([foot] if foot else [])]
    )


def _table(
    view: RunView,
    now: float,
    most: int,
    width: int,
    steering: Steering,
    recent: Sequence[tuple[float, str]],
) -> list[Line]:
    tasks = sorted(
        (t for t in view.tasks.values() if t.running),
        key=lambda t: (t.stage == WAITING, t.started, t.kind, t.name),
    )
    devices = ordered(view, steering)
    about: list[Line] = []
    if idle := _not_begun(view):
        about.append([(idle, "dim")])
    if filtered := len(view.devices) - len(devices):
        about.append([(f"{filtered} devices don't match the filter", "dim")])
    task_rows = tasks[: max(1, most // 2)]
    places = [n for n, device in enumerate(devices) if device.name == steering.chosen]
    # What is chosen is seen, also far down the list.
    first = max(0, places[0] - most // 2) if places else 0
    candidates = devices[first : first + most]
    row = partial(_device_row, view=view, now=now, chosen=steering.chosen, wide=width >= WIDE)
    blocks = [
        *laid_out([_task_row(task, now) for task in task_rows], width),
        *laid_out([row(one) for one in candidates], width),
    ]
    room = most - len(about) - (len(tasks) > len(task_rows))
    if sum(map(len, blocks)) > room or len(devices) > len(candidates):
        room -= _COUNTED if width < WIDE else 1  # for the lines that count the rest
    found: list[Line] = []
    shown = 0
    for block in blocks:
        if len(found) + len(block) > room and shown > 0:
            break
        found += block
        shown += 1
    free = room - len(found)
    if len(tasks) > len(task_rows):
        found += _more("tasks", (_task_state(task) for task in tasks[len(task_rows) :]), width, 1)
    seen = max(0, shown - len(task_rows))
    if hidden := [*devices[:first], *devices[first + seen :]]:
        found += _more("devices", map(_device_state, hidden), width, _COUNTED)
    found += about
    if recent and free > len(recent):
        found += [[], *([(f"{clock(at - view.started)}  {line}", "dim")] for at, line in recent)]
    return found


def ordered(view: RunView, steering: Steering) -> list[DeviceView]:
    """The devices that the filter lets through, as they are listed."""
    found = listed(view, steering)
    match steering.order:
        case "state":
            return sorted(found, key=lambda d: (_rank(d), _natural(d.name)))
        case "rate":
            return sorted(found, key=lambda d: (-max(d.rates.values(), default=0.0), d.name))
        case "time":
            return sorted(found, key=lambda d: (d.cell is None, d.since, d.name))
    return sorted(found, key=lambda d: _natural(d.name))


def _rank(device: DeviceView) -> int:
    """What computes stands before what waits, and that before what is idle: rows are short."""
    if device.cell is None:
        return 2 if device.error else 3
    return int(device.stage in _WAITS)


@lru_cache(maxsize=4096)
def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which `sim2` comes before `sim10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(name)]


def _headline(view: RunView, now: float, width: int) -> Line:
    if not view.run_id and view.preparing:
        return [(view.preparing, "bold"), (f"  {clock(now - view.since)}", "dim")]
    if not view.run_id:
        running = sum(task.running for task in view.tasks.values())
        return [(f"{running} running, {len(view.tasks) - running} done", "bold")]
    planned, done = len(view.cells), len(view.done)
    line = [
        (f"  {clock(now - view.started)}", "dim"),
        (f"  {done}/{planned} cells", ""),
    ]
    for outcome, count in view.outcomes().items():
        line.append((f"  {MARKS[outcome]} {count} {outcome}", STYLES[outcome]))
    busy = sum(device.cell is not None for device in view.devices.values())
    waiting = planned - done - busy
    if waiting > 0:
        line.append((f"  {waiting} waiting", "dim"))
    room = width - sum(cell_len(text) for text, _ in line)
    return [(cut(one_line(view.name, 40), max(4, room)), "bold"), *line]


def _not_begun(view: RunView) -> str:
    """What cells wait for that no device has yet: their artifact, or a device that is free."""
    exporting = tuple(
        f"{task.name}:" for task in view.tasks.values() if task.running and task.kind == "export"
    )
    if not exporting:
        return ""
    begun = {device.cell for device in view.devices.values()}
    waiting = Counter(
        cell.partition(":")[0]
        for cell in view.cells
        if cell.startswith(exporting) and cell not in view.done and cell not in begun
    )
    if not waiting:
        return ""
    exports = "an export" if len(waiting) == 1 else f"{len(waiting)} exports"
    return f"{waiting.total()} cell{'' if waiting.total() == 1 else 's'} wait for {exports}"


def _task_row(task: TaskView, now: float) -> Row:
    stage = f"{task.stage} {task.index}/{task.count}" if task.count else task.stage
    return Row(
        (one_line(f"{_KIND.get(task.kind, task.kind)} {task.name}"), "magenta"),
        (one_line(stage), ""),
        (_task_detail(task), "dim"),
        _task_time(task, now),
        task.share(now),
        bar=True,
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


def _task_state(task: TaskView) -> str:
    return "waiting" if task.stage == WAITING else "running"


def _device_row(device: DeviceView, view: RunView, now: float, chosen: str, *, wide: bool) -> Row:
    # A reason to wait counts nothing, and comes before what was measured until then.
    reason = "" if device.unit else device.detail
    said = one_line(reason or device.error or device.detail, 400)
    text = _transfer(device, now) or (said if reason else rates(device, tight=not wide) or said)
    if device.cell is None and device.error:
        text = one_line(device.error, 400)
    left_s = device.left_s(now)
    time = clock(now - device.since) if left_s is None else f"{clock(left_s)} left"
    return Row(
        (one_line(device.name), "bold" if device.cell else "dim"),
        _stage(device, view, wide=wide),
        (text, "red" if device.error else "cyan"),
        time if device.cell else "",
        device.share,
        bar=device.cell is not None,
        about=one_line(device.cell).split(":")[0] if device.cell else "",
        chosen=device.name == chosen,
    )


def _device_state(device: DeviceView) -> str:
    if device.cell is None:
        return "failed" if device.error else "idle"
    return _STAGES.get(device.stage, one_line(device.stage, 20)) or "starting"


def _stage(device: DeviceView, view: RunView, *, wide: bool) -> tuple[str, str]:
    if device.cell is None:
        if device.error:
            return "attempt failed", "red"
        counts = Counter(c.outcome for c in view.done.values() if c.device == device.name)
        counted = " ".join(f"{MARKS[outcome]}{n}" for outcome, n in sorted(counts.items()))
        return f"idle {counted}".strip(), "dim"
    stage = _STAGES.get(device.stage, one_line(device.stage, 20))
    if device.unit == "bytes" and device.total:
        amount = f"{size(device.done)} of {size(device.total)}"
        stage += f" {amount if wide else f'{100 * (device.share or 0.0):.0f} %'}"
    elif device.total:
        stage += f" {device.done}/{device.total} {device.unit if wide else ''}".rstrip()
    if device.attempt > 1:
        stage += f" (attempt {device.attempt})"
    return stage, "blue"


def _transfer(device: DeviceView, now: float) -> str:
    found = device.transfer(now)
    return "" if found is None else transfer(*found)


def _more(what: str, states: Iterable[str], width: int, most: int) -> list[Line]:
    counts = Counter(states)
    counted = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return wrapped(f"+ {counts.total()} more {what}: {counted}", "dim", width, most)


def _log_lines(
    log: Sequence[tuple[float, ViewEvent]], view: RunView, now: float, most: int
) -> list[Line]:
    """Events of one device, the latest last."""
    found: list[Line] = []
    before = RunView(cells=view.cells, done=view.done)
    for at, event in log:
        after = update(before, event, at)
        line = describe(before, after, event)
        if isinstance(event, JobProgress) and event.rate is not None:
            line = f"{one_line(event.device)}: {event.rate[0]} {number(event.rate[1])} tok/s"
        if line:
            found.append([(f"{clock(now - at):>6} ago  ", "dim"), (line, "")])
        before = after
    return found[-most:] or [[("nothing has happened yet", "dim")]]


def _foot(steering: Steering, *, steered: bool) -> Line:
    if steering.asks:
        return [(f"cancel {steering.asks}? y or n", "bold yellow")]
    if steering.typing:
        return [(f"filter: {steering.words}_", "bold")]
    if steering.said:
        return [(one_line(steering.said, 300), "yellow")]
    if not steered:
        return []
    words = f"filter: {steering.words}  " if steering.words else ""
    return [(f"{words}? help  / filter  s sort  up/down choose  l log  c cancel", "dim")]
