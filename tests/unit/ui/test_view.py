from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from farm.core.events import JobStarted
from farm.core.view import CellDone, RunEnded, TaskFinished, TaskProgress, TaskStarted
from farm.ui.screen import draw
from farm.ui.view import RunView, update
from tests.unit.core.builders import attempt_id
from tests.unit.reports.builders import results
from tests.unit.ui.scenes import EXPORT, cell_id, lost, progress, script, stage, started


def fold(*events: object, view: RunView | None = None) -> RunView:
    state = view or RunView()
    for n, event in enumerate(events):
        state = update(state, event, 100.0 + n)  # type: ignore[arg-type]
    return state


def test_a_whole_run() -> None:
    view = fold(*script())
    assert view.outcomes() == {"passed": 1, "failed": 1}
    assert view.line is not None
    assert not any(task.running for task in view.tasks.values())
    assert all(device.cell is None for device in view.devices.values())


def test_update_changes_nothing_in_place() -> None:
    view = RunView()
    for n, event in enumerate(script()):
        before = copy.deepcopy(
            (dict(view.tasks), dict(view.devices), dict(view.done), dict(view.cells))
        )
        following = update(view, event, float(n))
        assert (view.tasks, view.devices, view.done, view.cells) == before
        view = following


def test_a_task_and_its_share() -> None:
    view = fold(started(), TaskStarted("export", EXPORT, 50.0), stage("quantise", 3))
    task = view.tasks["export", EXPORT]
    assert (task.stage, task.index, task.started) == ("quantise", 3, 102.0)
    assert task.share(127.0) == pytest.approx(0.5)
    assert task.share(1000.0) == 0.99
    ended = fold(TaskFinished("export", EXPORT, 42.0, cache_hit=True), view=view)
    task = ended.tasks["export", EXPORT]
    assert (task.running, task.took_s, task.cache_hit) == (False, 42.0, True)


def test_the_clock_of_an_estimate_begins_with_the_work_itself() -> None:
    """Neither the wait for a host nor a toolchain's installation is what took so long before."""
    installing = "installing toolchain old"
    view = fold(started(), TaskStarted("export", EXPORT, 50.0), stage(installing, 0))
    assert view.tasks["export", EXPORT].stage == installing
    view = fold(stage(installing, 0), stage("lower", 1), stage("quantise", 2), view=view)
    assert view.tasks["export", EXPORT].started == 101.0


def test_the_share_of_a_download_is_its_bytes_and_without_an_estimate_its_stages() -> None:
    event = TaskProgress("export", EXPORT, "download", 1, 6, 2.0, "", 30, 120)
    assert fold(event).tasks["export", EXPORT].share(0.0) == 0.25
    assert fold(stage("lower", 3)).tasks["export", EXPORT].share(0.0) == 0.5
    assert fold(TaskStarted("export", EXPORT)).tasks["export", EXPORT].share(0.0) is None


def test_progress_of_a_task_that_was_running_already_counts_from_its_start() -> None:
    view = fold(stage("lower", 5, elapsed_s=60.0))
    assert view.tasks["export", EXPORT].started == 40.0


def test_a_device_keeps_its_rates_and_the_moment_of_its_stage() -> None:
    view = fold(
        JobStarted(attempt_id(cell_id("s24")), "s24", "t"),
        progress("s24", "measure", 1, 3, "launches", rate=("pp64", 300.0)),
        progress("s24", "measure", 2, 3, "launches", rate=("tg32", 80.0)),
        progress("s24", "measure", 3, 3, "launches", rate=("tg32", 81.0)),
    )
    device = view.devices["s24"]
    assert dict(device.rates) == {"pp64": 300.0, "tg32": 81.0}
    assert (device.since, device.share) == (101.0, 1.0)


def test_a_transfer_has_a_rate_and_time_left_also_after_a_break() -> None:
    view = fold(
        progress("s24", "deploy", 0, 100, "bytes"),
        progress("s24", "deploy", 40, 100, "bytes"),
        progress("s24", "deploy", 60, 100, "bytes"),
    )
    begun = view.devices["s24"].since
    assert view.devices["s24"].transfer(begun + 2.0) == (30.0, 40 / 30)
    again = fold(progress("s24", "deploy", 0, 40, "bytes"), view=view)
    assert again.devices["s24"].transfer(begun + 9.0) is None
    assert fold(progress("s24", "check"), view=view).devices["s24"].transfer(begun + 9.0) is None


def test_the_next_job_starts_without_the_rates_of_the_last() -> None:
    view = fold(
        progress("s24", "measure", rate=("tg32", 80.0)),
        JobStarted(attempt_id(cell_id("s24") + "x"), "s24", "t"),
    )
    assert dict(view.devices["s24"].rates) == {}


def test_a_failed_attempt_shows_its_reason_until_the_next_one() -> None:
    view = fold(progress("s24", "deploy"), lost("s24"))
    assert view.devices["s24"].error == "s24: the cable was pulled"
    again = fold(JobStarted(attempt_id(cell_id("s24"), 2), "s24", "t"), view=view)
    assert (again.devices["s24"].error, again.devices["s24"].attempt) == ("", 2)


def test_a_new_run_starts_from_nothing() -> None:
    view = fold(*script(), started())
    assert (view.tasks, view.devices, view.done, view.line) == ({}, {}, {}, None)


def test_cells_count_once() -> None:
    result = results()[0]
    assert fold(CellDone(result), CellDone(result), RunEnded("", 0)).outcomes() == {"passed": 1}


def test_a_rate_alone_leaves_the_count() -> None:
    view = fold(
        progress("s24", "measure", 10, 40, "tokens"),
        progress("s24", "measure", unit="tokens", rate=("tg32", 80.0)),
    )
    device = view.devices["s24"]
    assert (device.done, device.total, dict(device.rates)) == (10, 40, {"tg32": 80.0})


def test_the_clock_of_a_budget_runs_while_it_measures() -> None:
    told: dict[str, Any] = {
        "speeds": (("tg64", 80.0, 0.02),),
        "budget": (100.0, 160.0),
        "heat": (36.0, 45.0),
    }
    view = fold(started(), progress("s24", "measure", 3, 8, "launches", **told))
    device = view.devices["s24"]
    assert device.speeds == {"tg64": (80.0, 0.02)}
    assert (device.left_s(101.0), device.left_s(111.0), device.left_s(400.0)) == (60.0, 50.0, 0.0)
    view = fold(progress("s24", "cooldown", detail="cooling down", **told), view=view)
    assert view.devices["s24"].left_s(400.0) == 60.0
    view = fold(progress("s24", "clean"), view=view)
    assert view.devices["s24"].left_s(400.0) is None


def test_a_reason_to_wait_comes_before_rates_and_goes_with_the_next_one() -> None:
    rated = progress("s24", "measure", rate=("tg64", 80.0))
    reason = "cooling down: battery 44.0 °C, limit 37 (waits 600 s at most)"
    view = fold(started(), rated, progress("s24", "cooldown", 2, detail=reason))

    def shown(state: RunView) -> str:
        lines = draw(state, 110.0, width=200)
        console = Console(file=io.StringIO(), width=200)
        console.print(lines, end="")
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert reason in shown(view)
    lost = progress("s24", "measure", detail="connection lost, looking for the device (3 s)")
    view = fold(rated, lost, view=view)
    assert "connection lost" in shown(view)
    view = fold(rated, view=view)
    assert "connection lost" not in shown(view)
    assert "tg64 80 tok/s" in shown(view)
