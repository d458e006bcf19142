from __future__ import annotations

import sys
from pathlib import Path

import pytest

from farm.core.artifact import Toolchain
from farm.core.errors import ConfigError, ExportError
from models.prepare import own_versions
from models.toolchain import ensure_environment, environment_key, executorch_requirements


def test_empty_specifier_is_this_environment(tmp_path: Path) -> None:
    found = ensure_environment(Toolchain("default"), tmp_path)
    assert found.python == Path(sys.executable)
    assert found.versions == own_versions()
    assert not list(tmp_path.iterdir())


def test_wheels_count_by_content(tmp_path: Path) -> None:
    wheel = tmp_path / "executorch-1-py3-none-any.whl"
    wheel.write_bytes(b"one")
    requirements = executorch_requirements(Toolchain("nightly", str(tmp_path / "*.whl")))
    assert requirements == (str(wheel),)
    first = environment_key(requirements)
    assert environment_key(requirements) == first
    wheel.write_bytes(b"two")
    assert environment_key(requirements) != first
    assert environment_key(("executorch==1.5.1",)) != environment_key(("executorch==1.4.1",))


@pytest.mark.parametrize(
    ("specifier", "words"),
    [("latest", "neither a version specifier"), ("/nowhere/*.whl", "no wheel matches")],
)
def test_wrong_specifiers_are_config_errors(specifier: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        ensure_environment(Toolchain("old", specifier), tmp_path)


def test_toolchain_that_can_not_be_installed_quotes_pip_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lines: list[str] = []
    for _ in range(2):
        with pytest.raises(
            ExportError, match=r"toolchain old: ==9\.9\.9 can't be installed: ERROR"
        ):
            ensure_environment(Toolchain("old", "==9.9.9"), tmp_path, lines.append)
    assert len([line for line in lines if line.startswith("creating ")]) == 2
    assert not list(tmp_path.glob("*/ready.json"))
