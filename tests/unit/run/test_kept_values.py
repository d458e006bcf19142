"""What the journal keeps comes back as it was: results of devices, and the plan."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm import codec
from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConfigError, LeaseError
from farm.core.plan import Plan
from farm.core.runtime import DeviceRunResult
from farm.core.spec import RunSpec
from farm.planning.planning import Prepared, RunOptions
from farm.protocols import PROBE_LIMIT_S
from farm.run.journal import Journal
from farm.run.measured import Measured, attempts_in
from farm.run.saved_plan import SavedPlan, look_again, refuse_other, save
from tests.unit.core import builders as b
from tests.unit.fakes import FakeSite

finite = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, finite)
many = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ],
)


@pytest.mark.parametrize("kind", [DeviceRunResult, Device, RunSpec, Plan])
def test_values_survive_json(kind: type[Any]) -> None:
    @many
    @given(st.from_type(kind))
    def check(value: object) -> None:
        assert codec.from_data(kind, json.loads(json.dumps(codec.to_data(value)))) == value

    check()


def test_a_number_that_is_none_is_kept_and_stops_no_run(tmp_path: Path) -> None:
    result = replace(b.run_result(), deployed=replace(b.run_result().deployed, seconds=math.nan))
    kept = Measured("c", 1, b.device("a"), None, "", "0", result)
    journal = Journal(tmp_path / "journal.db")
    journal.record([], [("c", kept)])
    assert math.isnan(journal.measured()["c"].result.deployed.seconds)
    journal.close()


def prepared(*devices: Device) -> Prepared:
    spec = b.run_spec()
    catalog = replace(b.catalog(spec), export_bytes={("m1", "r1"): 7})
    return Prepared(spec, {"name": "test"}, catalog, b.plan(spec, *devices))


def test_a_plan_comes_back_whole() -> None:
    planned = prepared(b.device("a"), b.device("b", alive=False))
    saved = save(planned, RunOptions(config=Path("x.yaml")), "")
    again = codec.from_json(SavedPlan, codec.to_json(saved))
    assert again.prepared == planned


def test_other_options_are_refused_and_named(tmp_path: Path) -> None:
    saved = save(prepared(b.device("a")), RunOptions(config=None, select="name=a"), "")
    refuse_other(saved, RunOptions(config=None), tmp_path)
    refuse_other(saved, RunOptions(config=None, select="name=a"), tmp_path)
    for changed in ({"select": "name=b"}, {"quick": True}, {"baseline": "x"}, {"overrides": "y"}):
        with pytest.raises(ConfigError, match=f"--{next(iter(changed))}|--set"):
            refuse_other(saved, RunOptions(config=None, **changed), tmp_path)


def test_devices_are_looked_at_again_and_none_vanishes(tmp_path: Path) -> None:
    rack = Device(DeviceEntry("far", "adb", site="rack2"), b.device("far").facts)
    planned = prepared(b.device("a"), b.device("gone"), b.device("other"), rack)

    class Site(FakeSite):
        async def inventory(
            self,
            entries: Any,
            *,
            adb_auto: bool,
            limit_s: float = PROBE_LIMIT_S,
            recover: bool = False,
        ) -> list[Device]:
            assert not adb_auto, "nothing is planned anew"
            now = {entry.name: b.device(entry.name) for entry in entries}
            facts = now["other"].facts
            assert facts is not None
            now["gone"] = b.device("gone", alive=False)
            now["other"] = replace(now["other"], facts=replace(facts, identity="id-z"))
            return list(now.values())

    saved = save(planned, RunOptions(config=None), "")
    again = asyncio.run(look_again(saved, {"": Site(lambda job: None)}, tmp_path))
    assert again.plan.cells == planned.plan.cells
    found = {device.name: device for device in again.plan.devices}
    assert {name: device.usable for name, device in found.items()} == {
        "a": True,
        "gone": False,
        "other": False,
        "far": False,
    }
    assert "another device (id-z)" in found["other"].reason
    assert "rack2" in found["far"].reason


def test_attempts_are_read_from_events() -> None:
    def ended(attempt: int, error: Exception | None) -> dict[str, Any]:
        kind = None if error is None else type(error).__name__
        row = {"kind": "JobFinished", "job_id": "j", "attempt": attempt, "device": "a"}
        return {**row, "at": f"t{attempt}", "error": str(error), "error_kind": kind}

    started = {"kind": "JobStarted", "job_id": "j", "attempt": 3, "device": "a", "at": "t2.5"}
    events = [ended(1, LeaseError("held")), ended(2, ConfigError("x")), started, ended(3, None)]
    (failed, ran) = attempts_in(events)["j"]
    assert (failed.n, failed.outcome, ran.n, ran.outcome) == (1, "errored", 2, "ran")
    assert (ran.started_at, ran.ended_at) == ("t2.5", "t3")
