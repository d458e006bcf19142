"""What somebody, or half a power cut, does to the folder of a deployment: named, never green."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from farm import codec
from farm.config.load import load_inventory
from farm.core.deployment import MANIFEST, Manifest
from farm.core.errors import ConfigError
from farm.core.rules.rollout import RolloutPlan, Target
from farm.deploy import begin, changes, fleet, past, work
from farm.deploy.record import SavedDeployment
from farm.deploy.work import Ended
from farm.planning.reach import Reach
from farm.ui import deploy as ui
from tests.command import CONFIGS, Farm

pytestmark = pytest.mark.export

QUICK = ("--cluster", "none", "--live", "off", "--quick", "--set", "gates={}")


@dataclass
class Kiosk:
    """This machine as a device with one deployment, and what can be done to it."""

    farm: Farm
    saved: SavedDeployment

    @property
    def folder(self) -> Path:
        return self.farm.home / "device" / "deployments" / "kiosk"

    @property
    def version(self) -> str:
        return self.saved.assigned[0].manifest.version

    def named(self, label: str, name: str = "kiosk") -> SavedDeployment:
        """The same files as another version, or under another name."""
        (one,) = self.saved.assigned
        manifest = replace(one.manifest, version=label, name=name)
        return replace(
            self.saved,
            name=name,
            deployment_id=f"0-{name}-{label}",
            rollout=RolloutPlan((Target(one.entry.name, label),), (1,)),
            assigned=(replace(one, manifest=manifest),),
        )

    def deploy(self, saved: SavedDeployment) -> Ended:
        return work.begin(saved, self.farm.home, lambda _device, _text: None)

    def alarms(self) -> tuple[str, ...]:
        reach = Reach(self.farm.home)
        devices = reach.look(load_inventory(None), "transport=local")
        return ui.status_alarms(fleet.status(devices, past.known(self.farm.home), reach))

    def back(self, version: str = "") -> changes.Changed:
        reach = Reach(self.farm.home)
        devices = reach.look(load_inventory(None), "transport=local")
        (done,) = changes.rollback(devices, "kiosk", version, self.farm.home, reach)
        return done


@pytest.fixture(scope="module")
def made(warm_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kiosk]:
    home = tmp_path_factory.mktemp("kiosk") / "home"
    shutil.copytree(warm_store, home / "store", symlinks=True)
    farm = Farm(home, tmp_path_factory.mktemp("cwd"))
    done = farm("run", str(CONFIGS / "tiny.yaml"), *QUICK, "--select", "transport=local")
    assert done.returncode == 0, done.stdout + done.stderr
    request = begin.DeployRequest(
        run="latest", to="transport=local", out=farm.cwd / "runs", name="kiosk"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARM_HOME", str(home))  # where this machine is a device, too
        yield Kiosk(farm, begin.plan(request, home).saved)


@pytest.fixture
def kiosk(made: Kiosk) -> Kiosk:
    """Nothing but the first version, in use."""
    shutil.rmtree(made.folder.parent, ignore_errors=True)
    shutil.rmtree(made.farm.home / "deployments", ignore_errors=True)
    ended = made.deploy(made.saved)
    assert ended.finished.outcome == "deployed", ended.finished
    assert made.alarms() == ()
    return made


def edited(kiosk: Kiosk) -> bytes:
    """The manifest, with the mark of what isn't validated put on it."""
    text = (kiosk.folder / "current" / MANIFEST).read_bytes()
    manifest = codec.from_json(Manifest, text)
    origin = replace(manifest.provenance, unverified="", outcome="passed", run_id="another")
    return codec.to_json(replace(manifest, provenance=origin)).encode()


def test_an_edited_manifest_is_drift_however_well_it_was_edited(kiosk: Kiosk) -> None:
    place, content = kiosk.folder / "current" / MANIFEST, edited(kiosk)
    link = place.readlink()
    place.unlink()
    place.write_bytes(content)
    (alarm,) = kiosk.alarms()
    assert f"{MANIFEST} is no link to an object" in alarm
    # As an object of its own, with the right name: every hash is right.
    sha = hashlib.sha256(content).hexdigest()
    (kiosk.folder.parents[1] / "objects" / sha).write_bytes(content)
    place.unlink()
    place.symlink_to(link.with_name(sha))
    (alarm,) = kiosk.alarms()
    assert f"{MANIFEST} isn't what this host deployed" in alarm
    assert kiosk.deploy(kiosk.named("next")).finished.outcome == "deployed"
    assert (kiosk.folder / "current").readlink().name == "next"


def test_a_link_to_a_version_that_is_gone_is_drift_and_the_next_one_mends_it(kiosk: Kiosk) -> None:
    shutil.rmtree(kiosk.folder / kiosk.version)
    (alarm,) = kiosk.alarms()
    assert f"kiosk {kiosk.version}" in alarm
    assert MANIFEST in alarm
    ended = kiosk.deploy(replace(kiosk.saved, deployment_id="0-again"))
    assert ended.finished.outcome == "deployed", ended.finished
    assert kiosk.alarms() == ()


def test_a_folder_in_the_place_of_the_link_is_left_alone_and_named(kiosk: Kiosk) -> None:
    current = kiosk.folder / "current"
    current.unlink()
    shutil.copytree(kiosk.folder / kiosk.version, current, symlinks=True)
    (alarm,) = kiosk.alarms()
    assert "current is no link but something else: nothing is in use" in alarm
    ended = kiosk.deploy(kiosk.named("next"))
    assert ended.finished.outcome != "deployed"
    assert any("is no link" in why for _, why in ended.finished.failures), ended.finished
    assert "is no link" in kiosk.back(kiosk.version).failure
    assert current.is_dir()
    assert not current.is_symlink()
    shutil.rmtree(current)
    assert (
        kiosk.deploy(replace(kiosk.saved, deployment_id="0-again")).finished.outcome == "deployed"
    )


def test_half_a_version_is_made_whole_before_it_is_used(kiosk: Kiosk) -> None:
    half = kiosk.folder / "next"
    shutil.copytree(kiosk.folder / kiosk.version, half, symlinks=True)
    (half / "model.pte").unlink()
    (kiosk.folder / ".new-next").mkdir()
    assert f"the manifest of kiosk next is of kiosk {kiosk.version}" in kiosk.back("next").failure
    assert (kiosk.folder / "current").readlink().name == kiosk.version, "half a version is in use"
    assert kiosk.deploy(kiosk.named("next")).finished.outcome == "deployed"
    assert (kiosk.folder / "current" / "model.pte").exists()
    assert kiosk.alarms() == ()
    assert not (kiosk.folder / ".new-next").exists()
    (kiosk.folder / kiosk.version / "model.pte").unlink()
    assert f"{kiosk.version} isn't what its manifest names" in kiosk.back(kiosk.version).failure
    assert (kiosk.folder / "current").readlink().name == "next", "a damaged version is in use"


def test_a_version_that_was_evicted_is_no_way_back(kiosk: Kiosk) -> None:
    for label in ("v2", "v3"):
        assert kiosk.deploy(kiosk.named(label)).finished.outcome == "deployed"
    assert not (kiosk.folder / kiosk.version).exists(), "two versions are kept"
    done = kiosk.back(kiosk.version)
    assert f"has no {kiosk.version} of kiosk to go back to; it has v2" in done.failure
    assert (kiosk.folder / "current").readlink().name == "v3"
    assert kiosk.back().failure == ""
    assert (kiosk.folder / "current").readlink().name == "v2"


def test_two_names_at_once_end_whole_or_say_who_was_first(
    kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Signals are the main thread's.
    monkeypatch.setattr(work, "handled_by", lambda _handler: threading.Lock())
    ended: dict[str, Ended] = {}

    def race(name: str) -> None:
        ended[name] = kiosk.deploy(kiosk.named("v1", name))

    racers = [threading.Thread(target=race, args=(name,)) for name in ("left", "right")]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    for name, one in ended.items():
        current = kiosk.folder.parent / name / "current"
        if one.finished.outcome == "deployed":
            assert (current / "model.pte").exists()
        else:
            assert one.finished.outcome == "rolled_back", one.finished
            assert any("leased by" in why for _, why in one.finished.failures), one.finished
            assert not current.is_symlink()
    assert any(one.finished.outcome == "deployed" for one in ended.values()), ended
    assert (kiosk.folder / "current" / "model.pte").exists()
    assert kiosk.alarms() == ()


def test_a_selector_that_matches_nothing_is_bad_usage(kiosk: Kiosk) -> None:
    request = begin.DeployRequest(run="latest", to="ring=nowhere", out=kiosk.farm.cwd / "runs")
    with pytest.raises(ConfigError, match="'ring=nowhere': no device matches") as caught:
        begin.plan(request, kiosk.farm.home)
    assert caught.value.exit_code == 2


def test_a_run_that_ended_with_3_ships_what_passed_and_says_so(
    kiosk: Kiosk, tmp_path: Path
) -> None:
    shutil.copytree(kiosk.farm.cwd / "runs", tmp_path / "runs", symlinks=True)
    path = tmp_path / "runs" / "latest" / "report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "exit_code": 3}))
    request = begin.DeployRequest(run="latest", to="transport=local", out=tmp_path / "runs")
    planned = begin.plan(request, kiosk.farm.home)
    assert "the run itself ended with exit 3: not all of it passed" in ui.plan_line(planned)
    assert planned.saved.assigned[0].manifest.provenance.run_exit_code == 3
