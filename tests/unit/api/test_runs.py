from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import farm
from farm.api import threads
from farm.core.errors import ConfigError
from farm.core.view import RunStarted, ViewEvent
from farm.reports import records
from farm.reports.json import render
from farm.run import control
from farm.run.control import ControlServer
from farm.run.interrupts import interrupts
from tests.unit.reports.builders import report, results

#: What takes longer to import than a person wants to wait.
HEAVY = ("torch", "ray", "pandas", "numpy", "pydantic", "jinja2", "executorch", "paramiko", "yaml")


def loaded(tmp_path: Path) -> farm.Run:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "report.json").write_text(render(report()), encoding="utf-8")
    return farm.load(folder)


def test_importing_farm_is_cheap_and_run_stays_the_function() -> None:
    code = (
        "import sys, farm, json; print(json.dumps([m for m in sys.argv[1:] if m in sys.modules]));"
        "import farm.run.run_folder; from farm.run import run_folder; print(callable(farm.run))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, timeout=60, check=True
    )
    imported, callable_still = done.stdout.splitlines()
    assert json.loads(imported) == []
    assert callable_still == "True"


def test_every_public_name_is_there() -> None:
    assert sorted(farm.__all__) == list(farm.__all__)
    assert all(hasattr(farm, name) for name in farm.__all__)


def test_a_run_says_how_it_ended(tmp_path: Path) -> None:
    run, made = loaded(tmp_path), report()
    assert (run.run_id, run.exit_code, run.verdict) == (
        made.run_id,
        made.exit_code,
        made.verdict_line,
    )
    assert not run.passed
    assert run.alarms == made.alarms
    first, *lines = run.why.splitlines()
    assert first == made.verdict_line
    failed = [one for one in made.results if one.outcome == "failed"]
    assert failed
    for one in failed:
        assert any(line.startswith("Failed: ") and one.cell_id in line for line in lines)
        assert f"  again: farm rerun {made.run_id} {one.cell_id}" in lines
    assert "\x1b" not in run.why


def test_frames_have_a_row_for_everything_and_no_made_up_number(tmp_path: Path) -> None:
    run, made = loaded(tmp_path), report()
    cells, metrics, samples, stages = run.cells, run.metrics(), run.samples(), run.stages()
    assert list(cells["cell_id"]) == [one.cell_id for one in made.results]
    assert len(metrics) == sum(len(one.performance) for one in made.results)
    timed = [row for one in made.results for row in one.performance]
    assert len(samples) == sum(len(row.samples) for row in timed)
    checked = [one.correctness for one in made.results if one.correctness]
    assert len(stages) == sum(len(one.stages) for one in checked)
    absent = [row.median is None for row in timed]
    assert list(metrics["median"].isna()) == absent
    missing = cells[cells["outcome"] == "skipped"]
    assert len(missing)
    assert missing["peak_rss_bytes"].isna().all()
    assert {"from", "to", "kl_mean"} <= set(stages.columns)


def test_a_run_without_a_cell_still_has_columns() -> None:
    from farm.api.frames import frame

    empty = frame(records.SAMPLES, report(()))
    assert list(empty.columns) == list(records.SAMPLES.columns)
    assert len(empty) == 0


def test_without_pandas_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = loaded(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pip install pandas.*Run\.report"):
        _ = run.cells
    assert run.report.results


@pytest.mark.parametrize("table", [records.CELLS, records.METRICS, records.SAMPLES, records.STAGES])
def test_rows_have_exactly_the_columns(table: records.Table) -> None:
    rows = list(table.rows(report()))
    assert rows
    assert all(tuple(row) == table.columns for row in rows)
    lines = table.as_csv(report(results()[:1])).splitlines()
    assert lines[0] == ",".join(table.columns)


@pytest.mark.parametrize("lives", [True, False])
def test_a_run_beside_an_event_loop_is_ended_by_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    asked: list[Path] = []
    ended, begun = threading.Event(), threading.Event()

    def cancel(folder: Path) -> None:
        asked.append(folder)
        if len(asked) == 3:
            ended.set()
        if len(asked) < 3 or not lives:
            raise ConfigError("the run has not begun yet, or has done all its work")

    monkeypatch.setattr(control, "cancel", cancel)
    monkeypatch.setattr(threads, "_AGAIN_S", 0.01)

    def work(emit: threads.Emit) -> str:
        emit(RunStarted("r", "test", (("a", "x"), ("b", "y")), str(tmp_path)))
        begun.set()
        assert ended.wait(20)
        return "the report"

    seen: list[ViewEvent] = []

    def note(event: ViewEvent) -> None:
        seen.append(event)

    def interrupt() -> None:
        begun.wait(20)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    if lives:
        assert threads.in_thread(work, note) == "the report"
        assert asked == [tmp_path] * 3, "told once, it isn't told again"
    else:  # nothing of the run says that somebody interrupted it
        with pytest.raises(KeyboardInterrupt):
            threads.in_thread(work, note)
    interrupting.join()
    assert len(seen) == 1


def test_a_run_of_another_thread_is_interrupted_by_its_control_socket(tmp_path: Path) -> None:
    """Signals belong to the main thread: elsewhere asyncio would raise."""
    found: list[list[str]] = []

    async def use() -> None:
        server, told = ControlServer(tmp_path), asyncio.Event()
        async with server.serving():
            with pytest.raises(ConfigError, match="not begun"):
                await asyncio.to_thread(control.cancel, tmp_path)
            with interrupts(told.set, server.ends) as seen:
                await asyncio.to_thread(control.cancel, tmp_path)
                await asyncio.wait_for(told.wait(), 20)
            with pytest.raises(ConfigError, match="all its work"):
                await asyncio.to_thread(control.cancel, tmp_path)
        found.append(seen)

    thread = threading.Thread(target=lambda: asyncio.run(use()))
    thread.start()
    thread.join()
    assert found == [["SIGINT"]]


def test_why_counts_what_it_leaves_out() -> None:
    from farm.api.reasons import reasons

    one = next(r for r in results() if r.outcome == "errored")
    many = tuple(replace(one, cell_id=f"cell{n}") for n in range(30))
    lines = list(reasons(report(many)))
    assert "and 10 more in report.html" in lines
