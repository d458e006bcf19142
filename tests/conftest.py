from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm
from tests.lab.host import locked
from tests.suite import (
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_handlecrashitem,
    pytest_runtest_makereport,
    pytest_terminal_summary,
    pytest_xdist_make_scheduler,
)

__all__ = [
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_handlecrashitem",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
]


@pytest.fixture(scope="session")
def warm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FARM_HOME that holds the tiny model's artifact: exported once for all tests.

    Workers of xdist share the export, but not the home: each has a copy of its own.
    """
    home = tmp_path_factory.mktemp("home")
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "warm"
    with locked(shared.with_suffix(".lock")):
        if not shared.exists():
            farm = Farm(home, tmp_path_factory.mktemp("cwd"))
            done = farm("export", str(CONFIGS / "tiny.yaml"), "--live", "off")
            assert done.returncode == 0, done.stdout + done.stderr
            shutil.copytree(home, shared, symlinks=True)
            return home
    shutil.copytree(shared, home, symlinks=True, dirs_exist_ok=True)
    return home


@pytest.fixture
def farm(warm_home: Path, tmp_path: Path) -> Farm:
    """The farm command in an empty folder, with the tiny artifact in its store."""
    return Farm(warm_home, tmp_path)
