"""Steps of a deployment on a made-up device: damage is never put in use, nor left unsaid."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from farm import codec
from farm.core.artifact import CanaryProgram, LogitsRef, ObjectRef
from farm.core.deployment import MANIFEST, Installed, InstalledFile, Manifest
from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConfigError, DeviceError, TransferError
from farm.core.result import Report
from farm.core.runner import OWN
from farm.core.runtime import Deployed, DeviceRunResult, LaunchResult
from farm.deploy import changes, fleet, past, service, work
from farm.deploy import door as door_module
from farm.deploy.controller import Rollout
from farm.deploy.door import Door
from farm.deploy.release import Release, refuse_edited
from farm.deploy.smoke import judged
from farm.site.context import SiteContext
from farm.site.device import deploy, deployments
from farm.store.objects import ContentStore
from tests.pace import slack
from tests.unit.core.rules.test_deployable import cell
from tests.unit.deploy.builders import manifest, ref
from tests.unit.judge.builders import check_launch

REF = ObjectRef("a" * 64, 1, "x")
CANARY = CanaryProgram(REF, (1,), LogitsRef(REF, 1, 1))


def ran(*launches: LaunchResult) -> DeviceRunResult:
    return DeviceRunResult(manifest().runner, launches, Deployed(0, 0, 0.0))


def test_a_check_that_could_not_run_never_passes(tmp_path: Path) -> None:
    """Not even where what is deployed was never validated."""
    store = ContentStore(tmp_path)
    unverified = replace(manifest(unverified="no run"), answer=None)
    for one in (manifest(), unverified):
        smoke = judged(one, ran(), CANARY, store, timed=False)
        assert "canary: no canary ran" in smoke.failure
        assert "answer: nothing was launched" in smoke.failure
    launch = replace(check_launch(), generated=(1,), backends=("XnnpackBackend",))
    smoke = judged(unverified, ran(launch), CANARY, store, timed=False)
    assert smoke.failure == "canary: no canary ran", "but its answer is nobody's to judge"


@dataclass
class MadeUp:
    """A device with versions of `kiosk`; it is its own helper and session."""

    versions: dict[str, Manifest]
    current: str
    damaged: bool = False
    unit: bool = False
    done: list[str] = field(default_factory=list)
    device: str = "d"

    def installed(self) -> tuple[Installed, ...]:
        def one(version: str, has: Manifest) -> Installed:
            files = [InstalledFile(f.path, f.object.sha256, 1, 0o700) for f in has.files]
            files.append(InstalledFile(MANIFEST, ref(version).sha256, 1, 0o600))
            return Installed("kiosk", version, version == self.current, tuple(files))

        return tuple(one(*item) for item in self.versions.items())

    def switch(self, version: str, expected: str | None) -> str:
        before, self.current = self.current, version
        assert before == version or expected in (None, before)
        return before

    def check(self, refs: Sequence[ObjectRef]) -> None:
        if self.damaged:
            raise TransferError(f"{refs[0].name} is damaged")

    @property
    def helper(self) -> Any:
        return self

    @property
    def facts(self) -> Any:
        return DeviceEntry("d", "adb")  # has a boot id in no test

    @property
    def keeper(self) -> Any:
        return self

    def take(self, _helper: object) -> None: ...
    def release(self) -> None: ...
    def close(self) -> None: ...

    def call(self, do: Any) -> Any:
        return do(self)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    device = MadeUp({"v1": manifest("v1"), "v2": manifest("v2")}, "v2")
    monkeypatch.setattr(door_module, "Session", lambda *_: device)
    monkeypatch.setattr(deployments, "list_installed", MadeUp.installed)
    monkeypatch.setattr(
        deployments, "switch", lambda d, _name, version, seen, _lease: d.switch(version, seen)
    )
    monkeypatch.setattr(deploy, "check_intact", lambda d, refs, _owner: d.check(refs))
    for module in (door_module, fleet):
        monkeypatch.setattr(module, "read_manifest", lambda d, _name, version: d.versions[version])
    monkeypatch.setattr(service, "is_installed", lambda d, _name: d.unit)
    monkeypatch.setattr(service, "start", lambda d, one: d.done.append(f"start {one.version}"))
    monkeypatch.setattr(service, "stop", lambda d, name: d.done.append(f"stop {name}"))
    return device


def door(one: Manifest, tmp_path: Path, *, served: bool = False) -> Door:
    context = SiteContext(tmp_path, ContentStore(tmp_path), cast("Any", None), cast("Any", None))
    release = Release(one, OWN)
    return Door(
        DeviceEntry("d", "adb"), release, CANARY, context, "r", 1, 2, lambda _text: None,
        served=served,
    )  # fmt: skip


def test_a_version_that_was_damaged_meanwhile_is_no_way_back(
    made_up: MadeUp, tmp_path: Path
) -> None:
    made_up.damaged = True
    with pytest.raises(TransferError, match="is damaged"):
        door(manifest("v2"), tmp_path).restore("v1", None)
    assert made_up.current == "v2", "it stays, and the deployment says that it couldn't go back"
    made_up.current = "v1"
    door(manifest("v2"), tmp_path).restore("v1", None)
    made_up.current, made_up.damaged = "v2", False
    door(manifest("v2"), tmp_path).restore("v1", None)
    assert made_up.current == "v1"


@pytest.mark.parametrize(
    ("was_served", "served", "previous", "done"),
    [
        (False, True, "v1", ["stop kiosk"]),
        (False, True, "", ["stop kiosk"]),
        (True, True, "v1", ["start v1"]),
        (True, False, "v1", ["start v1"]),
        (None, True, "v1", ["start v1"]),
    ],
)
def test_the_first_service_goes_with_the_version_that_brought_it(
    made_up: MadeUp,
    tmp_path: Path,
    was_served: bool | None,
    served: bool,
    previous: str,
    done: list[str],
) -> None:
    made_up.unit = True
    door(manifest("v2"), tmp_path, served=served).restore(previous, was_served)
    assert (made_up.current, made_up.done) == (previous, done)


def test_a_manifest_that_was_edited_after_the_copy_is_not_put_in_use(
    made_up: MadeUp, tmp_path: Path
) -> None:
    made_up.current = "v1"
    unmarked = manifest("v2")
    made_up.versions["v2"] = unmarked
    with pytest.raises(TransferError, match=r"manifest\.json of kiosk v2 is not what was deployed"):
        door(manifest("v2", unverified="never ran"), tmp_path).switch("v1")
    made_up.versions["v2"] = replace(unmarked, files=unmarked.files[:1])
    with pytest.raises(TransferError, match=r"manifest\.json"):
        door(manifest("v2"), tmp_path).switch("v1")
    del made_up.versions["v2"]
    with pytest.raises(DeviceError, match="no version v2"):
        door(manifest("v2"), tmp_path).switch("v1")
    assert made_up.current == "v1"


def test_a_manifest_in_the_place_of_another_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`current` may lead to another name's version, or a folder was copied."""

    class Transport:
        def pull(self, _path: str, local: Path, *, max_bytes: int) -> None:
            assert max_bytes > 0
            local.write_text(codec.to_json(manifest("v1")))

    helper = cast("Any", type("Helper", (), {"transport": Transport(), "root": "", "device": "d"}))
    assert fleet.read_manifest(helper, "kiosk", "v1") == manifest("v1")
    for name, version in (("kiosk", "v2"), ("other", "v1"), ("kiosk", "../other/v1")):
        with pytest.raises(ConfigError, match="is of kiosk v1"):
            fleet.read_manifest(helper, name, version)


def test_a_report_that_was_edited_to_passed_is_refused(tmp_path: Path) -> None:
    def report(*results: Any) -> Report:
        return cast("Report", type("Made", (), {"results": results}))

    passed, failed = cell("a"), cell("a", "failed")
    refuse_edited(report(passed), {passed.cell_id: passed}, tmp_path)
    refuse_edited(report(replace(failed, waived=True)), {failed.cell_id: failed}, tmp_path)
    refuse_edited(report(failed), {passed.cell_id: passed}, tmp_path)  # a regression
    other = replace(passed, artifact=replace(passed.artifact, sha256="b" * 64))
    for recorded in ({failed.cell_id: failed}, {}, {other.cell_id: other}):
        with pytest.raises(ConfigError, match="it was edited"):
            refuse_edited(report(passed), recorded, tmp_path)


def test_signals_end_it_from_a_thread_of_their_own_however_often_they_come() -> None:
    """A handler that waits for a lock of whatever it broke into would wait for ever."""
    ended_by: list[threading.Thread] = []
    ended = threading.Event()

    class Broken:
        def interrupt(self) -> None:
            ended_by.append(threading.current_thread())
            ended.set()

    with work._interrupting(cast("Rollout", Broken())):
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert ended.wait(10 * slack())
    assert len(ended_by) == 1
    assert ended_by[0] is not threading.main_thread()
    with work._interrupting(cast("Rollout", Broken())):
        pass
    assert len(ended_by) == 1, "without a signal nothing is ended"


def test_a_rollback_that_is_broken_off_has_written_down_what_it_did(tmp_path: Path) -> None:
    class Broken:
        sites = ()

        def at(
            self, _site: str, _work: object, entry: DeviceEntry, *_: object, **__: object
        ) -> Any:
            if entry.name == "b":
                raise KeyboardInterrupt
            change = past.Change("2026", "ann@desk", entry.name, "kiosk", "rollback", "v1", "v2")
            return changes.Changed(entry.name, change)

    devices = [Device(DeviceEntry(name, "adb"), None, "ready") for name in "ab"]
    with pytest.raises(KeyboardInterrupt):
        changes.rollback(devices, "kiosk", "", tmp_path, cast("Any", Broken()))
    assert [change.device for change in past.known(tmp_path).changes] == ["a"]
