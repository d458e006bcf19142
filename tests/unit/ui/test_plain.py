from __future__ import annotations

import io
import threading

from farm.core.events import JobProgress
from farm.core.view import TaskStarted
from farm.ui.plain import PlainView
from tests.unit.core.builders import attempt_id
from tests.unit.ui.scenes import EXPORT, progress, script, stage, started


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[PlainView, io.StringIO, Time]:
    stream, time = io.StringIO(), Time()
    return PlainView(stream, monotonic=time, wall=lambda: "12:00:00"), stream, time


def test_a_run_is_told_once_per_stage() -> None:
    view, stream, _ = make()
    for event in script():
        view.emit(event)
    lines = [line.removeprefix("12:00:00 ") for line in stream.getvalue().splitlines()]
    assert lines == [
        "run 20260102-x (llama-q4): 2 cells on 2 devices",
        f"export {EXPORT}: started, about 1 min 30 s",
        f"export {EXPORT}: download 1/6",
        f"export {EXPORT}: lower 5/6",
        f"export {EXPORT}: done in 1 min 24 s",
        f"reference {EXPORT}: started",
        f"reference {EXPORT}: from the cache",
        f"local: {EXPORT}:executorch:auto:local",
        f"s24: {EXPORT}:executorch:auto:s24",
        "local: deploy 105 MiB",
        "local: measure 3 launches",
        "s24: s24: the cable was pulled",
        f"[1/2] passed {EXPORT}:executorch:auto:local",
        lines[13],
    ]
    assert lines[13].startswith(f"[2/2] failed {EXPORT}:executorch:auto:s23: host_pte -> device")


def test_launches_after_one_another_are_no_new_stages() -> None:
    view, stream, _ = make()
    view.emit(started())
    for launch in range(1, 30):
        view.emit(progress("local", "measure", launch, 30, "launches"))
        view.emit(progress("local", "collect", launch, 30, "launches"))
    told = [line.partition(" ")[2] for line in stream.getvalue().splitlines()[1:]]
    assert [line.split()[1] for line in told] == ["measure", "collect"]


def test_a_flood_of_progress_is_one_line_in_ten_seconds() -> None:
    view, stream, time = make()
    view.emit(started())
    for step in range(1000):
        time.now += 0.05
        view.emit(progress("local", "measure", step, 1000, "tokens", rate=("tg32", 80.0)))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1 + 1 + 4
    assert "0/2 cells" in lines[-1]
    assert "tg32 80 tok/s" in lines[-1]


def test_silence_is_broken_by_a_line_and_the_end_by_none() -> None:
    view, stream, time = make()
    view.tick()
    time.now += 60
    view.tick()
    assert stream.getvalue() == ""
    view.emit(started())
    view.emit(TaskStarted("export", EXPORT, 90.0))
    view.emit(stage("lower", 5))
    time.now += 30
    view.tick()
    assert stream.getvalue().splitlines()[-1].endswith("lower 5/6 for 0:30 of about 1:30")
    for event in script():
        view.emit(event)
    told = stream.getvalue()
    time.now += 60
    view.tick()
    assert stream.getvalue() == told


def test_many_devices_are_counted() -> None:
    view, stream, time = make()
    view.emit(started(tuple(f"d{n}" for n in range(9))))
    for n in range(9):
        view.emit(progress(f"d{n}", "deploy" if n < 6 else "check"))
    time.now += 20
    view.tick()
    assert "devices: 6 deploy, 3 check" in stream.getvalue().splitlines()[-1]


def test_device_text_cannot_act_on_the_terminal() -> None:
    view, stream, _ = make()
    view.emit(started())
    view.emit(
        JobProgress(attempt_id("c"), "s24\x1b[2J\nfake", "lease", detail="\x1b]0;x\x07evil\r\x9b1m")
    )
    assert stream.getvalue().splitlines()[-1] == "12:00:00 s24 fake: lease (evil)"


def test_the_ticker_ends_with_the_block() -> None:
    before = threading.active_count()
    with PlainView(io.StringIO()) as view:
        view.emit(started())
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
