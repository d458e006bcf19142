"""A nightly tries its own gate; a planted slowdown that was not found takes a night its green."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from farm import paths
from farm.commands.self_check import with_self_check
from farm.core.comparison import BaselineReport, BaselineVerdict, MetricComparison
from farm.core.errors import FarmError
from farm.core.result import Report
from farm.planning.planning import RunOptions
from farm.reports.json import load_report
from farm.run.run import Finished
from farm.state.history import History
from tests.unit.reports.builders import report, results

CONFIG = """
name: night
models: [smollm2-135m]
matrix: {recipe: [xnnpack-8da4w]}
workload: {sustained_s: 60}
self_check: {every: 3, slower: xnnpack-fp32}
"""


class Gate:
    """Runs self-checks in memory; `says` is what the gate finds of each kind of arm."""

    def __init__(self) -> None:
        self.says: dict[str, BaselineVerdict] = {
            "xnnpack-8da4w": "PASS",
            "xnnpack-fp32": "REGRESSED",
        }
        self.asked: list[RunOptions] = []
        self.fails = ""
        self.ratio: float | None = 0.8

    def __call__(self, options: RunOptions) -> Finished:
        self.asked.append(options)
        if self.fails:
            raise FarmError(self.fails)
        word = next(w for w in options.overrides if w.startswith("matrix="))
        (recipe,) = yaml.safe_load(word.partition("=")[2])["recipe"]
        said = self.says[recipe]
        metric = MetricComparison("tg32", said, self.ratio, (0.79, 0.81), "why")
        compared = BaselineReport("r0", said, 0.8, None, (metric,), "why", "paired")
        cell = replace(results()[0], baseline=compared)
        made = replace(report((cell,)), run_id=f"c{len(self.asked)}")
        return Finished(made, Path("nowhere"))


@pytest.fixture
def gate() -> Gate:
    return Gate()


class Nights:
    """Nights of one config."""

    def __init__(self, folder: Path, gate: Gate) -> None:
        self.folder, self.gate, self.count = folder, gate, 0
        self.options = RunOptions(folder / "run.yaml")
        (folder / "run.yaml").write_text(CONFIG)

    def one(self, **changes: object) -> Report:
        self.count += 1
        folder = self.folder / f"r{self.count}"
        folder.mkdir()
        made = replace(
            report(results()[:1]),
            run_id=f"r{self.count}",
            name="night",
            started_at=f"2026-01-{self.count:02}",
            exit_code=0,
            verdict_line="1/1 judged: 1 passed, 0 failed; speed not gated -> exit 0",
            **changes,  # type: ignore[arg-type]
        )
        done = with_self_check(Finished(made, folder), self.options, self.folder, self.gate)
        if done.report.self_check is not None:
            assert load_report(folder) == done.report, "the files say what the command says"
        return done.report

    @contextlib.contextmanager
    def index(self) -> Iterator[History]:
        with contextlib.closing(History(paths.history_db(self.folder))) as history:
            yield history


@pytest.fixture
def night(tmp_path: Path, gate: Gate) -> Nights:
    return Nights(tmp_path, gate)


def test_a_cell_against_itself_every_night_and_a_slower_one_every_third(
    night: Nights, gate: Gate
) -> None:
    kinds = []
    for _ in range(4):
        made = night.one()
        assert made.self_check is not None
        kinds.append([one.kind for one in made.self_check.tonight])
        assert (made.exit_code, made.alarms) == (0, report(results()[:1]).alarms)
    assert kinds == [["same", "slower"], ["same"], ["same"], ["same", "slower"]]
    last = made.self_check
    assert last is not None
    assert (last.nights, last.same, last.false_regressed, last.slower, last.missed) == (
        4, 4, 0, 2, 0,
    )  # fmt: skip
    asked = gate.asked[0]
    assert asked.against_itself
    assert "workload.sustained_s=null" in asked.overrides
    (base,) = load_report(Path(asked.baseline or "")).results
    assert (base.cell_id, base.origin_run) == (results()[0].cell_id, "r1")
    (base,) = load_report(Path(gate.asked[1].baseline or "")).results
    assert base.cell_id == results()[0].cell_id.replace("xnnpack-8da4w", "xnnpack-fp32")
    with night.index() as index:
        assert len(index.self_checks("night", limit=30)) == 4
        assert index.self_checks("other", limit=30) == []


def test_a_planted_slowdown_that_is_not_found_is_no_green_night(night: Nights, gate: Gate) -> None:
    gate.says["xnnpack-fp32"] = "INSUFFICIENT"
    made = night.one()
    assert made.exit_code == 3
    assert made.verdict_line.endswith("the gate did not find its planted slowdown -> exit 3")
    assert any("planted slower artifact" in alarm for alarm in made.alarms)
    assert made.self_check is not None
    assert (made.self_check.slower, made.self_check.missed) == (1, 1)
    with night.index() as index:
        (run,) = index.runs()
    assert (run.exit_code, run.verdict) == (3, made.verdict_line)
    assert night.one().exit_code == 0, "the next nights aren't blind by that"


def test_a_slower_artifact_without_a_trusted_speed_was_not_tried(night: Nights, gate: Gate) -> None:
    gate.ratio = None
    made = night.one()
    assert made.exit_code == 3
    assert made.self_check is not None
    assert (made.self_check.slower, made.self_check.missed) == (0, 0)
    assert any("slower one: no speed can be trusted" in alarm for alarm in made.alarms)


def test_a_false_alarm_is_an_alarm_and_counted(night: Nights, gate: Gate) -> None:
    gate.says["xnnpack-8da4w"] = "REGRESSED"
    made = night.one()
    assert made.exit_code == 0
    assert any("is REGRESSED against itself" in alarm for alarm in made.alarms)
    assert made.self_check is not None
    assert (made.self_check.same, made.self_check.false_regressed) == (1, 1)


def test_what_could_not_be_tried_is_told_and_not_counted(night: Nights, gate: Gate) -> None:
    gate.fails = "the cable was pulled"
    made = night.one()
    assert made.exit_code == 3, "the gate was to be tried on a slower one, and was not"
    assert "could not be tried on its planted slowdown -> exit 3" in made.verdict_line
    assert sum("the cable was pulled" in alarm for alarm in made.alarms) == 2
    assert made.self_check is not None
    assert (made.self_check.same, made.self_check.slower) == (0, 0)
    gate.fails = ""
    again = night.one().self_check
    assert again is not None
    assert [one.kind for one in again.tonight] == ["same", "slower"], "due still"
    none = night.one(results=())
    assert any("no cell of the night passed" in alarm for alarm in none.alarms)


def test_a_failed_night_stays_failed_and_a_resumed_one_is_left_alone(
    night: Nights, gate: Gate, tmp_path: Path
) -> None:
    gate.says["xnnpack-fp32"] = "PASS"
    made = replace(report(results()[:1]), exit_code=1, name="night", verdict_line="x -> exit 1")
    done = with_self_check(Finished(made, tmp_path), night.options, tmp_path, gate)
    assert (done.report.exit_code, done.report.verdict_line) == (1, "x -> exit 1")
    asked = len(gate.asked)
    resumed = replace(night.options, config=None)
    with_self_check(Finished(made, tmp_path), resumed, tmp_path, gate)
    assert len(gate.asked) == asked


def test_a_history_travels_with_its_self_checks(night: Nights, tmp_path: Path) -> None:
    import json

    night.one()
    with night.index() as index:
        dump = index.dump()
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(dump))
    other = History(tmp_path / "other.db")
    other.load(path)
    assert len(other.self_checks("night", limit=5)) == 1
    del dump["tables"]["self_checks"]  # written by an older farm
    path.write_text(json.dumps(dump))
    assert other.load(path) == 1
    other.close()
