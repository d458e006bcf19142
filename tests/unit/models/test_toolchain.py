from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from farm import codec
from farm.core.artifact import Toolchain
from farm.core.errors import ConfigError, ExportError
from models import toolchain
from models.exporting.identify import own_versions
from models.toolchain import (
    build_environment,
    environment_key,
    executorch_requirements,
    exporter_pins,
    find_environment,
    install_order,
    own_environment,
)


def test_wheels_count_by_content(tmp_path: Path) -> None:
    wheel = tmp_path / "executorch-1-py3-none-any.whl"
    wheel.write_bytes(b"one")
    requirements = executorch_requirements(Toolchain("nightly", str(tmp_path / "*.whl")))
    assert requirements == (str(wheel),)
    pins = exporter_pins(Toolchain("nightly"))
    first = environment_key(requirements, pins)
    assert environment_key(requirements, pins) == first
    wheel.write_bytes(b"two")
    assert environment_key(requirements, pins) != first
    old, new = (
        environment_key((f"executorch=={version}",), pins) for version in ("1.4.1", "1.5.1")
    )
    assert old != new


def test_torch_and_torchao_belong_to_a_toolchain(tmp_path: Path) -> None:
    own = own_versions()
    torch, torchao = (version.partition("+")[0] for version in (own.torch, own.torchao))
    plain, newer, both = (
        Toolchain("release", "==1.5.1"),
        Toolchain("release", "==1.5.1", torch="9.1.0"),
        Toolchain("release", "==1.5.1", torch="9.1.0", torchao="0.99.0"),
    )
    assert exporter_pins(plain) == (f"torch=={torch}", f"torchao=={torchao}")
    assert exporter_pins(newer) == ("torch==9.1.0", "torchao"), "pip looks for one that fits"
    assert exporter_pins(both) == ("torch==9.1.0", "torchao==0.99.0")
    folders = {install_order(one, tmp_path).folder for one in (plain, newer, both)}
    assert len(folders) == 3, "each has an environment of its own"


def test_the_pins_reach_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(_toolchain: Toolchain, command: list[str], *_: object) -> list[str]:
        asked.append(command)
        return ['{"python": "3", "torch": "9.1.0", "executorch": "1.5.1", "torchao": "0.99.0"}']

    monkeypatch.setattr(toolchain, "_run", run)
    monkeypatch.setattr(toolchain, "_resolved", lambda *_: "1.5.1")
    wanted = Toolchain("newer", "==1.5.1", torch="9.1.0", torchao="0.99.0")
    toolchain.build_environment(install_order(wanted, tmp_path), lambda _line: None)
    assert any({"torch==9.1.0", "torchao==0.99.0"} <= {*command} for command in asked)


@pytest.mark.parametrize(
    ("specifier", "words"),
    [("latest", "neither a version specifier"), ("/nowhere/*.whl", "no wheel matches")],
)
def test_wrong_specifiers_are_config_errors(specifier: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        install_order(Toolchain("old", specifier), tmp_path)


def test_a_release_is_not_looked_up_and_a_range_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    order = install_order(Toolchain("release", "==1.5.1"), tmp_path)
    assert order.requirements == ("executorch==1.5.1",)
    assert Path(order.folder).parent == tmp_path
    assert not list(tmp_path.iterdir())
    with pytest.raises(ExportError, match=r"toolchain new: >=1\.5 can't be installed: "):
        install_order(Toolchain("new", ">=1.5"), tmp_path)


def test_toolchain_that_can_not_be_installed_quotes_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    order = install_order(Toolchain("old", "==9.9.9"), tmp_path)
    with pytest.raises(
        ExportError,
        match=r"toolchain old: ==9\.9\.9 can't be installed: .*No matching distribution found",
    ):
        build_environment(order, lambda _line: None)
    assert find_environment(Path(order.folder)) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("executorch-1.6.0-py3-none-any.whl", r"has an invalid wheel|is invalid|not.*zip"),
        ("executorch-1.6.0-cp311-cp311-win_amd64.whl", "not a supported wheel on this platform"),
    ],
)
def test_bad_wheel_quotes_pip(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no wheel")
    order = install_order(Toolchain("nightly", str(tmp_path / "*.whl")), tmp_path / "root")
    with pytest.raises(ExportError, match=words):
        build_environment(order, lambda _line: None)


def test_wheel_of_something_else_is_refused(tmp_path: Path) -> None:
    write_wheel(tmp_path, "other", "1.0")
    order = install_order(Toolchain("nightly", str(tmp_path / "*.whl")), tmp_path / "root")
    with pytest.raises(ExportError, match=r"other-1\.0-.*holds other, not executorch"):
        build_environment(order, lambda _line: None)


def write_wheel(folder: Path, name: str, version: str) -> None:
    """Write the smallest wheel that pip takes."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def test_environment_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    assert find_environment(folder) is None
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    (folder / "ready.json").write_text("{")
    assert find_environment(folder) is None
    (folder / "ready.json").write_text(codec.to_json(own_versions()))
    found = find_environment(folder)
    assert found is not None
    assert (found.key, found.versions) == ("key", own_versions())
    assert own_environment().key == ""
