"""A bundle of a run: what others find in it, what they don't, and what they can do with it."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from farm import paths
from farm.commands import bundle as command
from farm.commands.compare import compare
from farm.commands.diagnose import diagnose
from farm.core.errors import ConfigError, StoreError
from farm.core.result import CellResult
from farm.core.runner import DeployFile, RunnerBuild
from farm.deploy.made import Made
from farm.deploy.release import open_run
from farm.planning.planning import Prepared, RunOptions
from farm.run import run_folder
from farm.run.opening import open_resumed
from farm.run.rebuild import report_of
from farm.run.run import rerun_cell
from farm.store.objects import ContentStore
from tests.unit.core.builders import export_result
from tests.unit.run.test_run import Lab

#: What only the lab may know.
PRIVATE = ("10.9.8.7", "labuser", "/keys/id_lab", "uhubctl", "hunter2", "inventory-of-ours")


class Private(Lab):
    """A lab whose devices are reached by what nobody else may learn."""

    env: tuple[tuple[str, str], ...] = ()

    def prepared(self) -> Prepared:
        made = super().prepared()
        devices = tuple(
            replace(
                device,
                entry=replace(
                    device.entry,
                    host="10.9.8.7",
                    user="labuser",
                    identity="/keys/id_lab",
                    recover=("uhubctl -a cycle",),
                    origin="inventory-of-ours.yaml: devices.0",
                ),
            )
            for device in made.plan.devices
        )
        runners = {
            name: replace(runner, env=self.env) for name, runner in made.catalog.runners.items()
        }
        return replace(
            made,
            plan=replace(made.plan, devices=devices),
            catalog=replace(made.catalog, runners=runners),
        )


@pytest.fixture
def lab(tmp_path: Path) -> Private:
    made = Private(tmp_path)
    asyncio.run(made.start())
    return made


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_holds_the_run_and_every_hash(lab: Private, tmp_path: Path) -> None:
    made = command.write(lab.folder, tmp_path / "x.farm.zip", lab.home)
    files = contents(tmp_path / "x.farm.zip")
    assert files["report.json"] == (lab.folder / "report.json").read_bytes()
    assert {"report.html", "report.md", "junit.xml", "provenance.json", "config.yaml"} <= set(files)
    lines = [line.partition("  ") for line in files["SHA256SUMS"].decode().splitlines()]
    sums = {name: digest for digest, _, name in lines}
    assert set(sums) == set(files) - {"SHA256SUMS"}
    assert sums == {name: hashlib.sha256(files[name]).hexdigest() for name in sums}
    report = report_of(lab.folder, lab.home)
    samples = list(csv.DictReader(io.StringIO(files["samples.csv"].decode())))
    timed = [row for one in report.results for row in one.performance]
    assert len(samples) == sum(len(row.samples) for row in timed)
    origin = json.loads(files["provenance.json"])
    assert origin["report_sha256"] == sums["report.json"]
    assert [cell["outcome"] for cell in origin["cells"]] == ["passed", "passed"]
    assert made.left_out == ()
    assert made.size_bytes == (tmp_path / "x.farm.zip").stat().st_size


def test_what_only_the_lab_may_know_isnt_in_it(lab: Private, tmp_path: Path) -> None:
    command.write(lab.folder, tmp_path / "x.farm.zip", lab.home)
    journal = (lab.folder / "journal.db").read_bytes()
    assert all(word.encode() in journal for word in PRIVATE[:4]), "the run itself has it"
    for name, content in contents(tmp_path / "x.farm.zip").items():
        assert [word for word in PRIVATE if word.encode() in content] == [], name


def test_values_of_variables_stay_and_so_does_the_config(tmp_path: Path) -> None:
    lab = Private(tmp_path)
    lab.env = (("API_KEY", "hunter2"),)
    asyncio.run(lab.start())
    made = command.write(lab.folder, tmp_path / "x.farm.zip", lab.home)
    files = contents(tmp_path / "x.farm.zip")
    assert "config.yaml" not in files
    assert made.left_out == ("config.yaml: variables of executorch aren't given to others",)
    assert json.loads(files["bundle.json"])["left_out"] == list(made.left_out)
    assert not any(b"hunter2" in content for content in files.values())


def test_why_a_device_could_not_be_used_doesnt_tell_how_it_is_reached(
    lab: Private, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = (
        "labuser@10.9.8.7: no key is accepted; tried /keys/id_lab, ~/.ssh/id_of_ann; jump host"
        " ann@gate.lab.example: refused. gate.lab.example has to be trusted"
    )
    run = open_run(lab.folder, lab.home)
    first, *others = run.saved.plan.devices
    entry = replace(first.entry, transport="ssh")
    devices = (replace(first, entry=entry, state="absent", reason=why), *others)
    cell, *rest = run.report.results
    told = replace(
        run.report,
        results=(replace(cell, outcome="skipped", reason=f"{first.name}: {why}"), *rest),
        devices=tuple(replace(d, reason=why) for d in run.report.devices),
    )
    saved = replace(run.saved, plan=replace(run.saved.plan, devices=devices))
    opened = replace(run, report=told, saved=saved)
    monkeypatch.setattr(command, "open_run", lambda *_: opened)
    made = command.write(lab.folder, tmp_path / "x.farm.zip", lab.home)
    assert any(line.startswith("report.json: hosts, accounts") for line in made.left_out)
    files = contents(tmp_path / "x.farm.zip")
    assert b"no key is accepted; tried ***, ***; jump host ***" in files["report.json"]
    for word in ("10.9.8.7", "labuser", "id_lab", "id_of_ann", "ann@", "gate.lab"):
        assert [n for n, content in files.items() if word.encode() in content] == [], word


def test_a_runner_that_was_given_variables_isnt_shipped(
    lab: Private, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_of(lab.folder, lab.home)
    given = {report.results[0].cell_id: "hunter2"}
    object_ = ContentStore(paths.store_root(lab.home)).put_bytes(b"x", "x")

    def made_of(_folder: Path, _saved: object, result: CellResult, *_rest: object) -> Made:
        env = (("API_KEY", given[result.cell_id]),) if result.cell_id in given else ()
        build = RunnerBuild("r", "1", "x86_64", "0" * 64, (DeployFile(object_, "x"),), ("./x",))
        made = export_result()
        made = replace(made, bundle=replace(made.bundle, pte=object_, tokenizer=None))
        return Made(made, (1,), (2,), replace(build, env=env))

    monkeypatch.setattr(command, "made_of", made_of)
    made = command.write(lab.folder, tmp_path / "x.farm.zip", lab.home, with_artifacts=True)
    assert made.shipped == (report.results[1].cell_id,)
    assert made.left_out[0].endswith("variables, which aren't given to others")
    for name, content in contents(tmp_path / "x.farm.zip").items():
        assert b"hunter2" not in content, name


def test_whoever_takes_a_run_takes_a_bundle(
    lab: Private, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.farm.zip"
    command.write(lab.folder, path, lab.home)
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("FARM_HOME", str(elsewhere))
    folder = run_folder.find(str(path), tmp_path / "none")
    assert folder.is_relative_to(elsewhere)
    report = report_of(folder, elsewhere)
    assert report == report_of(lab.folder, lab.home)
    cells = compare(report, report_of(lab.folder, lab.home))
    assert all(pair.ratio in (1.0, None) and not pair.why for c in cells for pair in c.pairs)


def test_going_on_with_it_is_refused_with_what_to_do(
    lab: Private, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.farm.zip"
    command.write(lab.folder, path, lab.home)
    monkeypatch.setenv("FARM_HOME", str(lab.home))
    folder = run_folder.find(str(path), tmp_path)
    options = RunOptions(config=None, cluster="none", out=tmp_path)
    with pytest.raises(ConfigError, match="farm run BUNDLE --inventory FILE"):
        open_resumed(folder, options)
    with pytest.raises(ConfigError, match="farm run BUNDLE --inventory FILE"):
        rerun_cell(folder, "x", options, lab.home, lambda _event: None)
    with pytest.raises(ConfigError, match="farm run BUNDLE --inventory FILE"):
        command.write(folder, tmp_path / "y.farm.zip", lab.home)
    with pytest.raises(ConfigError, match="farm run BUNDLE --inventory FILE"):
        diagnose(folder, "x", lab.home, lambda _: None, lambda _: None, scratch=tmp_path)


def test_artifacts_that_are_gone_are_named(lab: Private, tmp_path: Path) -> None:
    path = tmp_path / "x.farm.zip"
    with pytest.raises(StoreError, match=r"nothing can be shipped: .*aren't in the store"):
        command.write(lab.folder, path, lab.home, with_artifacts=True)
    assert list(tmp_path.glob("*x.farm.zip*")) == []


def test_a_name_that_isnt_a_bundles_is_refused(lab: Private, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends with \.farm\.zip"):
        command.write(lab.folder, tmp_path / "x.zip", lab.home)
