from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm, end_started, share_objects, warm
from tests.lab.host import locked
from tests.suite import (
    pytest_collection,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_handlecrashitem,
    pytest_runtest_makereport,
    pytest_terminal_summary,
    pytest_xdist_make_scheduler,
)

# Threads of torch wait by spinning, which takes cores from the tests beside them. It changes no
# result; it is read when the library is loaded, here and in every process that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The width of whoever runs the tests is none of a user's pipe: tables have their own there.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)
share_objects()

__all__ = [
    "pytest_collection",
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_handlecrashitem",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
]


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """What a test started ends with it: a process that is left fails tests that come later."""
    yield
    end_started()


#: What the tiny model's runs share: the least launches, with all tokens and with those of --quick.
_ONCE = ("--cluster", "none", "--live", "off", "--select", "transport=local", "--set", "gates={}")
_FEW = ("workload.launches=1", "workload.max_launches=1", "workload.repetitions=2")


@pytest.fixture(scope="session")
def warm_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A content store that holds what runs of the tiny model make on their host, once for all.

    Its artifact and the canary's, eager logits and logits of the runner. Nobody may write to it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "warm"
    with locked(shared.with_suffix(".lock")):
        if not shared.exists():
            farm = Farm(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("cwd"))
            few = [word for setting in _FEW for word in ("--set", setting)]
            for words in (few, ["--quick"]):
                done = farm("run", str(CONFIGS / "tiny.yaml"), *_ONCE, *words)
                assert done.returncode == 0, done.stdout + done.stderr
            (farm.home / "store").rename(shared)
    return shared


@pytest.fixture(scope="session")
def warm_home(warm_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FARM_HOME in which the tiny model's runs have everything but the device; one a worker."""
    return warm(tmp_path_factory.mktemp("home"), warm_store)


@pytest.fixture
def new_home(warm_store: Path, tmp_path: Path) -> Path:
    """Such a FARM_HOME for one test, whose local device is empty."""
    return warm(tmp_path / "home", warm_store)


@pytest.fixture
def farm(warm_home: Path, tmp_path: Path) -> Farm:
    """The farm command in an empty folder, with the tiny artifact in its store."""
    return Farm(warm_home, tmp_path)
