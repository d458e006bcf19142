from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm


@pytest.fixture(scope="session")
def warm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FARM_HOME that holds the tiny model's artifact: exported once for all tests."""
    home = tmp_path_factory.mktemp("home")
    farm = Farm(home, tmp_path_factory.mktemp("cwd"))
    done = farm("export", str(CONFIGS / "tiny.yaml"), "--live", "off")
    assert done.returncode == 0, done.stdout + done.stderr
    return home


@pytest.fixture
def farm(warm_home: Path, tmp_path: Path) -> Farm:
    """The farm command in an empty folder, with the tiny artifact in its store."""
    return Farm(warm_home, tmp_path)
