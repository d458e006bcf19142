"""One cell of a run again, as a run of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from farm.cluster import start as cluster_start
from farm.cluster.start import Runtime
from farm.core.errors import FarmError, PlanError, RunnerCrashed
from farm.core.runtime import DeviceJob, DeviceRunResult
from farm.run.run import Finished, rerun_cell
from tests.unit.core import builders as b
from tests.unit.fakes import FakePool, FakeSite
from tests.unit.run.test_run import Lab, outcomes


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A run whose cell on device `b` crashed, and a cluster in memory for what comes after."""
    made = Lab(tmp_path)

    def crashes(job: DeviceJob) -> DeviceRunResult | FarmError:
        return RunnerCrashed("ended by signal 11") if job.device == "b" else b.run_result()

    first = asyncio.run(made.start(crashes))
    assert outcomes(first) == {"a": "passed", "b": "errored"}

    async def start(cluster: str, home: Path, **_: object) -> Runtime:
        def noted(job: DeviceJob) -> DeviceRunResult:
            made.jobs.append(job.device)
            return b.run_result()

        return Runtime(FakePool(), {"": FakeSite(noted)}, lambda: None)

    monkeypatch.setattr(cluster_start, "start", start)
    monkeypatch.setattr(cluster_start, "launch", lambda cluster: None)
    made.jobs.clear()
    return made


def cell_on(lab: Lab, device: str) -> str:
    return next(cell.cell_id for cell in lab.prepared().plan.cells if cell.place == device)


def again(lab: Lab, cell_id: str, on: str = "") -> Finished:
    return rerun_cell(lab.folder, cell_id, lab.options, lab.home, lab.seen.append, on=on)


def test_only_the_cell_runs_in_a_folder_of_its_own(lab: Lab) -> None:
    first = lab.folder
    done = again(lab, cell_on(lab, "b"))
    assert done.folder != first
    assert outcomes(done.report) == {"b": "passed"}
    assert done.report.exit_code == 0
    assert lab.jobs == ["b"]
    assert done.report.config_sha256 == lab.prepared().spec.sha256


def test_on_another_device_it_has_that_one_in_its_name(lab: Lab) -> None:
    done = again(lab, cell_on(lab, "b"), on="a")
    (result,) = done.report.results
    assert (result.device.name, result.cell_id) == ("a", cell_on(lab, "a"))


@pytest.mark.parametrize(
    ("cell", "on", "says"),
    [("m1/r1:executorch:auto:x", "", "did you mean m1/r1"), ("", "c", "no device 'c'; it has")],
)
def test_what_the_run_does_not_have_is_refused_at_once(
    lab: Lab, cell: str, on: str, says: str
) -> None:
    with pytest.raises(PlanError, match=says):
        again(lab, cell or cell_on(lab, "b"), on=on)
    assert lab.jobs == []
