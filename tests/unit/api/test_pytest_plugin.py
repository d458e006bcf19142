"""The pytest plugin where there is no device, and what it does with one that another test has."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farm.api import lab as lab_module
from farm.api import pytest_plugin
from farm.api.devices import Place
from farm.api.lab import Lab
from farm.core.errors import LeaseError
from tests.unit.core.builders import device

ROOT = Path(__file__).resolve().parents[3]
NONE = "devices: []\ndefaults: {adb: none, local: false}\n"
TEST = """\
import pytest


@pytest.mark.farm_needs("transport=adb")
def test_marked():
    pass


def test_asks(farm_device):
    farm_device(select="ram>=4GiB")


def test_needs_none():
    pass
"""


def run(folder: Path, *words: str, inventory: str = NONE, **env: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(TEST)
    (folder / "lab.yaml").write_text(inventory)
    given = {key: value for key, value in os.environ.items() if key not in ("CI", "FARM_INVENTORY")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "farm.api.pytest_plugin", "-p", "no:cacheprovider",
         "-ra", "--farm-inventory", "lab.yaml", *words],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**given, "PYTHONPATH": str(ROOT), "FARM_HOME": str(folder / "home"),
             "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_without_a_device_a_test_is_skipped_and_says_why(tmp_path: Path) -> None:
    code, text = run(tmp_path)
    assert code == 0, text
    assert "1 passed, 2 skipped" in text
    assert "farm: no device for transport=adb (no device at all)" in text
    assert "farm: no device for ram>=4GiB (no device at all)" in text


@pytest.mark.parametrize("how", [("--farm-require", {}), ("-q", {"CI": "true"})])
def test_where_devices_are_required_it_fails(tmp_path: Path, how: tuple[str, Any]) -> None:
    word, env = how
    code, text = run(tmp_path, word, **env)
    assert code == 1, text
    assert "1 passed" in text
    assert "skipped" not in text
    assert "farm: no device for transport=adb (no device at all)" in text


def test_a_wrong_inventory_is_no_reason_to_skip(tmp_path: Path) -> None:
    code, text = run(tmp_path, inventory="device: []\n")
    assert code == 1, text
    assert "skipped" not in text
    assert "lab.yaml: device" in text


def test_the_entry_point_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (name,) = project["entry-points"]["pytest11"].values()
    assert import_module(name).farm_device


def test_a_mark_says_which_device_by_keyword_too() -> None:
    marks = (pytest.mark.farm_needs("ram>=4GiB"), pytest.mark.farm_needs(select="transport=adb"))
    item: Any = SimpleNamespace(iter_markers=lambda _name: [one.mark for one in marks])
    assert pytest_plugin._marked(item) == "ram>=4GiB, transport=adb"


class Fake:
    """Devices `a` and `b` of which some are somebody else's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: list[str] = []
        self.busy: set[str] = set()
        monkeypatch.setattr(lab_module, "survey", lambda *_: (device("a"), device("b")))
        monkeypatch.setattr(lab_module, "Connection", self._connection)
        monkeypatch.setattr(lab_module, "kept_hold", self._hold)
        monkeypatch.setattr(lab_module, "_AGAIN_S", 0.01)

    def _connection(self, entry: Any, _home: Path) -> Any:
        return SimpleNamespace(entry=entry, close=lambda: None)

    @contextmanager
    def _hold(self, connection: Any, reason: str, me: str, *, over_left: bool) -> Iterator[None]:
        assert over_left
        name = connection.entry.name
        assert "@" in me
        if name in self.busy:
            raise LeaseError(f"{name} is held by ann@desk: {reason}")
        self.held.append(name)
        try:
            yield
        finally:
            self.held.remove(name)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(monkeypatch)


def session(tmp_path: Path, wait_s: float = 0.0) -> Lab:
    return Lab(Place(tmp_path / "home", None, tmp_path / "runs"), "", wait_s)


def quiet(_name: str, _text: str) -> None:
    return None


def test_a_device_is_held_for_the_test_and_given_back(tmp_path: Path, fake: Fake) -> None:
    with session(tmp_path).taken("", "test_x", quiet) as one:
        assert (one.name, fake.held) == ("a", ["a"])
    assert fake.held == []


def test_two_tests_never_have_one_device_also_of_one_user(tmp_path: Path, fake: Fake) -> None:
    mine, theirs = session(tmp_path), session(tmp_path)
    with mine.taken("", "x", quiet) as one, theirs.taken("", "y", quiet) as other:
        assert (one.name, other.name) == ("a", "b")
        with (
            pytest.raises(LeaseError, match="a is another test's of this host; b is another"),
            mine.taken("", "z", quiet),
        ):
            pass


def test_who_has_all_devices_is_said(tmp_path: Path, fake: Fake) -> None:
    fake.busy = {"a", "b"}
    with (
        pytest.raises(LeaseError, match="waited 0 s for a device: a is held by ann@desk: test x;"),
        session(tmp_path).taken("", "x", quiet),
    ):
        pass


def test_a_run_of_the_test_has_the_device_meanwhile(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from farm.api import devices

    seen: list[object] = []

    def ran(config: Any, **given: Any) -> Any:
        seen.append((list(fake.held), given["select"], given["out"], given["cluster"]))
        return SimpleNamespace(folder=tmp_path, why="1/1 judged", passed=True)

    monkeypatch.setattr(devices, "run", ran)
    notes: list[tuple[str, str]] = []
    with session(tmp_path).taken("", "x", lambda *one: notes.append(one)) as one:
        assert one.run("c.yaml").passed
        assert fake.held == ["a"]
    assert seen == [([], "name=a", tmp_path / "runs", "none")]
    assert ("run", f"{tmp_path}\n1/1 judged") in notes
