"""Which C++ SDK a runner is built against."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.core.artifact import Sdk
from runners.build import sdk
from runners.build.sdk import choose_sdk, installed_sdk, sdk_version


def environment(root: Path, key: str, version: str, *, libraries: bool) -> Path:
    package = root / key / "lib" / "python3.11" / "site-packages" / "executorch"
    (package / "lib").mkdir(parents=True)
    (package / "version.py").write_text(f'__version__ = "{version}"\n')
    for name in sdk._LIBRARIES if libraries else ():
        (package / "lib" / name).touch()
    return package


def choose(wanted: Sdk, root: Path) -> sdk.Chosen:
    return choose_sdk("x86_64", wanted, root, root / "cache", lambda _line: None)


def test_nothing_asked_for_is_farms_own(tmp_path: Path) -> None:
    assert choose(Sdk(), tmp_path) == sdk.Chosen(installed_sdk())


def test_environment_of_the_toolchain_tells_two_builds_of_one_version_apart(
    tmp_path: Path,
) -> None:
    version = sdk_version(installed_sdk())
    first = environment(tmp_path, "one", version, libraries=True)
    second = environment(tmp_path, "two", version, libraries=True)
    assert choose(Sdk(version, "one"), tmp_path) == sdk.Chosen(first)
    assert choose(Sdk(version, "two"), tmp_path) == sdk.Chosen(second)


def test_wheel_without_libraries_is_stood_in_for_and_says_so(tmp_path: Path) -> None:
    environment(tmp_path, "old", "1.4.1", libraries=False)
    found = choose(Sdk("1.4.1", "old"), tmp_path)
    assert found.folder == installed_sdk()
    assert "ExecuTorch 1.4.1 has no C++ SDK" in found.note
    assert f"the runtime of {sdk_version(installed_sdk())}" in found.note
    # Another host, where that toolchain isn't installed, comes to the same.
    assert choose(Sdk("1.4.1", "elsewhere"), tmp_path) == found


def test_own_version_serves_where_the_environment_is_not(tmp_path: Path) -> None:
    version = sdk_version(installed_sdk())
    assert choose(Sdk(f"{version}+cpu", "elsewhere"), tmp_path) == sdk.Chosen(installed_sdk())


def test_other_version_is_downloaded_for_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cache" / "sdk" / "executorch-1.5.0-x86_64" / "executorch"
    place.mkdir(parents=True)
    (place / "version.py").write_text('__version__ = "1.5.0"\n')
    assert choose(Sdk("1.5.0", "elsewhere"), tmp_path) == sdk.Chosen(place)
