"""A run in virtual time: what must be exact, and what a night's rules look like in it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from farm.core.flow.cellstate import FlowDefect
from farm.core.flow.flow import RunFlow
from farm.core.flow.jobs import RETRY_PAUSE_S
from farm.core.flow.simulate import Hosts, SimulatedRun, simulate
from farm.core.plan import make_plan
from farm.core.runtime import DeviceJob
from farm.core.spec import DeviceRequest, RunSpec
from farm.core.tasks import (
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    ReferenceTask,
    TokensTask,
)
from tests.unit.core import builders as b

ONE = Hosts(count=1, cpus=2, cpus_per_export=2)
SECONDS = {
    ExportTask: 100.0,
    TokensTask: 2.0,
    ReferenceTask: 10.0,
    HostRunTask: 5.0,
    CompareTask: 1.0,
}


def seconds(work: HostTask | DeviceJob) -> float:
    return 50.0 if isinstance(work, DeviceJob) else SECONDS[type(work)]


def flow_of(spec: RunSpec, devices: int, transport: str = "adb") -> RunFlow:
    catalog = b.catalog(spec)
    found = [b.device(f"d{number}", transport=transport) for number in range(devices)]
    return RunFlow(spec, make_plan(spec, found, catalog), catalog, run_id="run")


def night(spec: RunSpec, devices: int, hosts: Hosts = ONE, transport: str = "adb") -> SimulatedRun:
    return simulate(flow_of(spec, devices, transport), seconds, hosts)


def test_the_reference_of_a_cell_computes_while_it_is_measured() -> None:
    ran = night(b.run_spec(), 1)
    assert ran.wall_s == 100 + 2 + 50 + 1
    assert ran.outcomes == {"passed": 1}
    assert [span.kind for span in ran.spans] == [
        "export",
        "tokens",
        "reference",
        "host_run",
        "job",
        "compare",
    ]
    assert ran.busy_s("export") == 200, "CPU seconds"
    assert ran.busy_s("job") == 50


def test_a_device_has_one_job_at_a_time_and_a_second_one_halves_them() -> None:
    pool = b.run_spec(recipes=("r1",), requests=(DeviceRequest("", any=1, pool="p"),))
    each = b.run_spec(recipes=("r1", "r2"))
    alone = night(each, 1)
    jobs = sorted((s.begin_s, s.end_s) for s in alone.spans if s.kind == "job")
    assert all(first[1] <= second[0] for first, second in pairwise(jobs))
    assert night(pool, 3).outcomes == {"passed": 1}


def test_cpus_bound_what_a_host_does_at_once() -> None:
    spec = b.run_spec(recipes=("r1", "r2"))
    narrow, wide = night(spec, 2), night(spec, 2, Hosts(1, 4, 2))
    assert narrow.wall_s > wide.wall_s == 100 + 2 + 50 + 50 + 1
    assert night(spec, 2, Hosts(2, 2, 2)).wall_s == wide.wall_s
    for moment in {span.begin_s for span in narrow.spans}:
        used = [s.cpus for s in narrow.spans if s.begin_s <= moment < s.end_s]
        assert sum(used) <= 2


def test_this_host_is_left_alone_while_it_is_measured() -> None:
    ran = night(b.run_spec(recipes=("r1", "r2")), 1, transport="local")
    jobs = [span for span in ran.spans if span.kind == "job"]
    others = [span for span in ran.spans if span.kind != "job"]
    assert len(jobs) == 2
    for job in jobs:
        assert all(s.end_s <= job.begin_s or s.begin_s >= job.end_s for s in others)


def test_a_lost_device_costs_half_a_job_a_pause_and_another_try() -> None:
    lost: list[str] = []

    def once(job: DeviceJob) -> bool:
        lost.append(job.cell_id)
        return len(lost) == 1

    ran = simulate(flow_of(b.run_spec(), 1), seconds, ONE, once)
    assert ran.wall_s == 100 + 2 + 25 + RETRY_PAUSE_S + 50 + 1
    assert ran.outcomes == {"passed": 1}
    always = simulate(flow_of(b.run_spec(), 1), seconds, ONE, lambda job: True)
    assert always.outcomes == {"errored": 1}


def test_a_flow_that_waits_for_nothing_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = flow_of(b.run_spec(), 1)
    monkeypatch.setattr(flow, "handle", lambda stimulus: [])
    with pytest.raises(FlowDefect, match="never comes"):
        simulate(flow, seconds, ONE)
