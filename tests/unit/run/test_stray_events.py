"""What of another run, epoch or attempt comes from a site reaches nobody. No Ray, no device."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from farm.core.errors import DeviceLost
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.runtime import DeviceJob, DeviceRunResult
from tests.unit.core import builders as b
from tests.unit.fakes import AT, FakeSite
from tests.unit.run.test_controller import Bench


def test_events_of_another_run_are_neither_recorded_nor_shown(tmp_path: Path) -> None:
    site = FakeSite(lambda job: None)

    def answer(job: DeviceJob) -> DeviceRunResult:
        for change in ({"run_id": "earlier"}, {"epoch": 9}):
            stray = replace(job.attempt_id, **change)
            site._say(JobStarted(stray, job.device, AT))
            site._say(JobProgress(stray, job.device, "measure", detail="stray"))
            lost = DeviceLost("stray", device=job.device)
            site._say(JobFinished(stray, job.device, AT, None, lost))
        return b.run_result()

    site.answer = answer

    async def scenario() -> Bench:
        bench = Bench(tmp_path, site)
        await bench.run()
        return bench

    bench = asyncio.run(scenario())
    assert {result.outcome for result in bench.flow.results.values()} == {"passed"}
    assert bench.flow.dropped == {"another run": 6, "another epoch": 6}
    recorded = [event for event in bench.journal.events() if event["kind"].startswith("Job")]
    assert {(event["run_id"], event["epoch"]) for event in recorded} == {("r", 1)}
    assert len(bench.logs) == 2, "logs of strays would replace those of the run"
    shown = [event for event in bench.seen if isinstance(event, JobFinished | JobProgress)]
    assert len(shown) == 2
    assert bench.controller.busy_s.keys() == {"a", "b"}
