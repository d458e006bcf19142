"""Devices of other hosts: what travels to them, and what a resume tells their host."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConfigError
from farm.core.rules.rollout import Do, Step, StepEvent
from farm.core.runner import OWN
from farm.deploy import changes, past, record, work
from farm.deploy.door import Prepared
from farm.deploy.past import Change
from farm.deploy.record import Assigned, SavedDeployment
from farm.planning.reach import Reach
from tests.unit.deploy.builders import manifest
from tests.unit.deploy.test_record import saved

ENTRY = DeviceEntry("a", "ssh", site="rack")


@dataclass
class Rack:
    """The way to a host; what it is told travels as it would over a cluster."""

    sites: tuple[str, ...] = ("rack",)
    told: list[tuple[Do, tuple[str, int]]] = field(default_factory=list)
    brought: list[str] = field(default_factory=list)

    def bring(self, refs: list[Any], site: str) -> None:
        self.brought += [ref.name for ref in refs]

    def at(self, site: str, do: Callable[..., Any], *arguments: Any, **_more: Any) -> Any:
        assert site == "rack"
        do, arguments = pickle.loads(pickle.dumps((do, arguments)))
        if isinstance(arguments[-1], Do):
            _entry, _release, _canary, lease, _keep, _served, step = arguments
            self.told.append((step, lease))
            return Prepared("v1", 7, "right", was_served=True) if step.step == "prepare" else "boot"
        entry, _work, by, name, version = arguments
        change = Change("2026", by, entry.name, name, "rollback", version or "v1", "v2")
        return changes.Changed(entry.name, change)


def planned() -> SavedDeployment:
    one = Assigned(ENTRY, manifest("v2"), OWN, "passed on this device")
    return replace(saved("d1", "a"), assigned=(one,))


def silent(_device: str, _text: str) -> None: ...


@pytest.mark.parametrize(
    ("killed_in", "rest"),
    [
        ("prepare", ["prepare", "switch", "check"]),
        ("switch", ["switch", "check"]),
        ("check", ["check"]),
    ],
)
def test_a_step_of_a_killed_controller_is_done_again_under_a_newer_lease(
    tmp_path: Path, killed_in: str, rest: list[str]
) -> None:
    """What the host may still be doing for the old one is refused by the device from then on."""
    steps: tuple[Step, ...] = ("prepare", "switch", "check")
    done: dict[str, dict[str, Any]] = {
        "prepare": {"previous": "v1", "was_served": True},
        "switch": {"boot_id": "boot"},
    }
    with record.create(tmp_path, planned()) as journal:
        for step in steps[: steps.index(cast("Step", killed_in)) + 1]:
            journal.add([StepEvent(1.0, 1, "began", step, "a")])
            if step != killed_in:
                journal.add([StepEvent(1.0, 1, "ok", step, "a", **done[step])])
    with pytest.raises(ConfigError, match="rack, which are other hosts: give --cluster"):
        work.resume("latest", tmp_path, silent)
    rack = Rack()
    ended = work.resume("latest", tmp_path, silent, cast("Reach", rack))
    assert ended.finished.outcome == "deployed"
    assert [step.step for step, _ in rack.told] == rest
    assert {lease for _, lease in rack.told} == {("deploy-d1", 2)}
    assert rack.told[-1][0].boot_id == "boot"
    assert "model.pte" in rack.brought, "its host may have lost it meanwhile"
    ended = work.resume("d1", tmp_path, silent, cast("Reach", rack), back=True)
    assert ended.finished.outcome == "rolled_back"
    last, lease = rack.told[-1]
    assert (last.step, last.previous, last.was_served, lease[1]) == ("restore", "v1", True, 3)


def test_a_rollback_at_another_host_is_kept_by_this_one(tmp_path: Path) -> None:
    devices = [Device(ENTRY, None, "ready"), Device(replace(ENTRY, name="b", site="gone"), None)]
    done = changes.rollback(devices, "kiosk", "", tmp_path, cast("Reach", Rack()))
    assert [one.failure == "" for one in done] == [True, False]
    (kept,) = past.known(tmp_path).changes
    assert (kept.device, kept.action, kept.version) == ("a", "rollback", "v1")
