"""The forecast of a run: where its durations come from, and what more devices would change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from farm import codec
from farm.commands import sim
from farm.commands.sim import Durations, SimRequest, forecast
from farm.core.errors import PlanError
from farm.core.flow.chain import ArtifactChain
from farm.core.flow.lengths import CLOSING, OPENING
from farm.core.plan import make_plan
from farm.core.result import AttemptReport
from farm.core.spec import DeviceRequest, RunSpec
from farm.paths import history_db
from farm.planning.planning import Prepared, RunOptions
from farm.state.history import History
from farm.ui.forecast import forecast as shown
from tests.unit.core import builders as b
from tests.unit.reports.builders import report
from tests.unit.ui.test_tables import text as printed

OPTIONS = RunOptions(config=Path("c.yaml"))
POOL = tuple(DeviceRequest("", any=1, pool=f"p{number}") for number in range(8))


def answers(monkeypatch: pytest.MonkeyPatch, spec: RunSpec, *, alive: bool = True) -> None:
    catalog = b.catalog(spec)
    plan = make_plan(spec, [b.device("phone", alive=alive)], catalog)
    prepared = Prepared(spec, {}, catalog, plan)
    monkeypatch.setattr(sim, "probe_and_plan", lambda options, home: prepared)


def remember(home: Path, durations: dict[str, float]) -> None:
    history = History(history_db(home))
    history.add(report(()), home, durations)
    history.close()


def test_more_devices_bring_a_pool_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, b.run_spec(requests=POOL))
    known = {
        OPENING: 3.0,
        CLOSING: 2.0,
        "export:m1/r1": 10.0,
        "reference:m1/r1": 1.0,
        "host_run:m1/r1": 1.0,
        "compare:m1/x": 1,
    }
    remember(tmp_path, {**known, "job:m1/r1:executorch:auto:p0@phone": 100.0})
    made = forecast(SimRequest(OPTIONS, deadline_s=300, scatter=0), tmp_path)
    assert made.case.cells == 8
    assert made.case.wall_s == 3 + 10 + 1 + 800 + 1 + 2
    assert made.bottleneck == "devices"
    assert made.twice_devices_s == pytest.approx(3 + 10 + 1 + 400 + 1 + 2)
    assert made.deadline_devices == 4, "eight jobs: three devices have three rounds of 100 s"
    assert made.deadline_hosts is None
    assert made.sources == {"measured": 6, "similar": 15, "assumed": 1}
    text = printed(shown(made, 300.0), 100)
    assert "8 cells on 1 device, 1 host" in text
    assert "within 5 min 00 s: no; 4 devices would do" in text


def test_the_same_seed_gives_the_same_nights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, b.run_spec(requests=POOL))
    first, again, other = (
        forecast(SimRequest(OPTIONS, devices=3, seed=seed, lost=0.2, cpus=2), tmp_path)
        for seed in (1, 1, 9)
    )
    assert codec.to_data(first) == codec.to_data(again)
    assert first.case.walls_s != other.case.walls_s


def test_what_no_run_tells_is_assumed_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, b.run_spec())
    made = forecast(SimRequest(OPTIONS, devices=2), tmp_path)
    assert made.sources["assumed"] == len(made.assumed) == 8
    assert made.twice_devices_s is None, "each device has a cell of its own"
    text = printed(shown(made, None), 300)
    assert "Assumed, since no earlier run on this host tells: compare:m1/r1" in text
    assert "more devices mean more cells" in text


def test_without_a_device_there_is_nothing_to_simulate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, b.run_spec(), alive=False)
    with pytest.raises(PlanError, match="no device answers"):
        forecast(SimRequest(OPTIONS), tmp_path)


def test_a_copy_takes_as_long_as_what_it_is_a_copy_of() -> None:
    spec = b.run_spec()
    catalog = b.catalog(spec)
    plan = make_plan(spec, [b.device("phone~2")], catalog)
    chain = ArtifactChain(plan.artifacts[0], spec, catalog)
    chain.export, chain.tokens = b.export_result(), b.tokenized()
    job = chain.job(plan.cells[0], "phone~2", attempt=1, run_id="r", epoch=1)
    past = {"job:m1/r1:executorch:auto:phone@phone": 7.0}
    durations = Durations(past, {"phone~2": "phone"}, budget_s=120)
    assert durations.seconds(job) == 7.0
    assert set(durations.source.values()) == {"measured"}


def test_history_keeps_how_long_a_job_took(tmp_path: Path) -> None:
    begin, end = "2026-01-01T00:00:00.000Z", "2026-01-01T00:01:30.000Z"
    ran = AttemptReport(2, "phone", begin, end, "ran", None)
    made = report()
    cell = replace(made.results[0], attempts=(replace(ran, n=1, outcome="errored"), ran))
    history = History(tmp_path / "history.db")
    history.add(replace(made, results=(cell, made.results[-1])), tmp_path, {})
    assert history.durations_s() == {f"job:{cell.cell_id}@phone": 90.0}
    history.close()
