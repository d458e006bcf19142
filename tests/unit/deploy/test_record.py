"""The journal of a deployment: a crash only pauses it, and damage is never guessed at."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest

from farm import paths
from farm.core.artifact import CanaryProgram, LogitsRef, ObjectRef
from farm.core.errors import ConfigError, StoreError
from farm.core.rules.rollout import RolloutPlan, StepEvent, Target
from farm.deploy import past, record
from farm.deploy.record import SavedDeployment
from farm.deploy.work import outcomes, state_of
from farm.ui.deploy import status_line

REF = ObjectRef("a" * 64, 1, "x")
CANARY = CanaryProgram(REF, (1,), LogitsRef(REF, 1, 1))


def saved(deployment_id: str = "d1", *devices: str) -> SavedDeployment:
    targets = tuple(Target(name, "v2") for name in devices or ("a", "b"))
    plan = RolloutPlan(targets, (len(targets),))
    return SavedDeployment(deployment_id, "m", "r", "t", "ann@desk", plan, (), CANARY, 2)


def ok(step: str, device: str, **more: str) -> StepEvent:
    return StepEvent(1.0, 1, "ok", step, device, **more)  # type: ignore[arg-type]


def test_events_are_there_again_and_sessions_are_counted(tmp_path: Path) -> None:
    with record.create(tmp_path, saved()) as first:
        first.add([ok("prepare", "a", previous="v1"), ok("prepare", "b")])
        assert first.session == 1
    with record.Record(record.find(tmp_path, "latest")) as second:
        assert second.saved == saved()
        assert [event.previous for event in second.events] == ["v1", ""]
        assert second.session == 2


def test_a_line_that_a_crash_cut_is_none_and_the_next_one_is_whole(tmp_path: Path) -> None:
    with record.create(tmp_path, saved()) as opened:
        opened.add([ok("prepare", "a")])
    file = record.find(tmp_path, "d1") / record.EVENTS
    with file.open("ab") as torn:
        torn.write(b'{"at": 1.0, "dev' + b"x" * 5000)
    with record.Record(file.parent) as opened:
        assert len(opened.events) == 1
        opened.add([ok("prepare", "b")])
    assert [event.device for event in record.read_events(file.parent)] == ["a", "b"]


def test_damage_in_the_middle_stops_everything(tmp_path: Path) -> None:
    with record.create(tmp_path, saved()) as opened:
        opened.add([ok("prepare", "a"), ok("prepare", "b")])
    file = record.find(tmp_path, "d1") / record.EVENTS
    file.write_bytes(file.read_bytes().replace(b"prepare", b"pre\x00are", 1))
    with pytest.raises(StoreError, match="line 1 is damaged"):
        record.Record(file.parent)


def test_what_is_damaged_is_named_and_hides_nothing_else(tmp_path: Path) -> None:
    for name in ("d1", "d2", "d3", "d4"):
        with record.create(tmp_path, saved(name)) as opened:
            opened.add([ok("switch", "a"), ok("switch", "b")])
    folder = paths.deployments(tmp_path)
    events = folder / "d1" / record.EVENTS
    events.write_bytes(events.read_bytes().replace(b"switch", b"swi\x00ch", 1))
    (folder / "d2" / record.PLAN).write_bytes(b"{")
    (folder / "d3" / record.PLAN).write_text("{}")
    change = past.Change("2026", "ann@desk", "c", "m", "remove", "v1")
    past.write_down(tmp_path, change)
    changes = folder / "changes.jsonl"
    changes.write_bytes(changes.read_bytes() + b'{"at": "20')
    past.write_down(tmp_path, replace(change, at="2027"))
    known = past.known(tmp_path)
    assert sorted(one.device for one in known.changes) == ["a", "b", "b", "c", "c"]
    assert known.damage[:2] == (f"{folder / 'd2' / record.PLAN} is damaged: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        f"{events}: line 1 is damaged")  # fmt: skip
    assert known.damage[2:] == (f"{changes}: line 2 is damaged",)
    assert len(known.foreign) == 1, "of another farm: no damage, but named"
    assert "2 places of this host's journals NOT read" in status_line((), 2)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    with record.create(tmp_path, saved()) as opened:
        opened.add([ok("prepare", "a")])
        size = (opened.folder / record.EVENTS).stat().st_size
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, most))
        try:
            with pytest.raises(StoreError, match="can't write"):
                opened.add([ok("prepare", "b")])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert (opened.folder / record.EVENTS).stat().st_size == size
        opened.add([ok("switch", "a")])
    steps = [event.step for event in record.read_events(record.find(tmp_path, "d1"))]
    assert steps == ["prepare", "switch"]


def test_two_processes_never_work_on_one_deployment(tmp_path: Path) -> None:
    with record.create(tmp_path, saved()) as opened:
        with pytest.raises(StoreError, match="another process"):
            record.Record(opened.folder)
        assert record.read_events(opened.folder) == [], "but anybody may look"


def test_an_unknown_deployment_names_the_newest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="made none yet"):
        record.find(tmp_path, "latest")
    for name in ("20260101-m-1", "20260102-m-2"):
        record.create(tmp_path, saved(name)).close()
    with pytest.raises(ConfigError, match="20260102-m-2, 20260101-m-1"):
        record.find(tmp_path, "nope")
    assert record.find(tmp_path, "latest").name == "20260102-m-2"
    assert (paths.deployments(tmp_path) / "20260102-m-2" / "plan.json").stat().st_mode & 0o77 == 0


def test_how_devices_stand_says_unknown_where_it_is() -> None:
    began = StepEvent(1.0, 1, "began", "switch", "a")
    events = [ok("prepare", "a", previous="v1"), ok("prepare", "b"), began]
    assert [one.in_use for one in outcomes(saved(), events)] == ["unknown", "old"]
    events.append(ok("switch", "a"))
    assert outcomes(saved(), events)[0].in_use == "new"
    events += [StepEvent(2.0, 1, "failed", "check", "a", "slow")]
    assert state_of(saved(), events) == "open"
    events += [StepEvent(2.0, 1, "failed", "restore", "a", "gone")]
    assert (outcomes(saved(), events)[0].in_use, state_of(saved(), events)) == (
        "unknown",
        "rollback_incomplete",
    )
    events += [ok("restore", "a")]
    assert (outcomes(saved(), events)[0].in_use, state_of(saved(), events)) == (
        "old",
        "rolled_back",
    )
