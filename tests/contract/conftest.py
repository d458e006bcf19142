from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farm.core.device import DeviceEntry
from tests.contract.devices import ContractDevice
from tests.contract.site_bench import SiteBench
from tests.lab.board import make_board
from tests.lab.fixtures import adb_server, destroy, lab, unique
from tests.lab.machine import Machine
from tests.lab.phone import AdbServer, make_phone

__all__ = ["adb_server", "lab"]

#: Transport kinds; `min` has only these programs on its PATH, `bare` no SFTP.
MINIMAL = ("sh", "cat", "chmod")
HERE = ("local", "sim", "local-min", "sim-min")
LAB = ("adb", "adb-min", "ssh", "ssh-min", "ssh-bare")
KINDS = [*HERE, *(pytest.param(kind, marks=pytest.mark.lab) for kind in LAB)]


@pytest.fixture(scope="session")
def lab_machine(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Machine]]:
    """Give one machine a kind for the whole session, booted when the first test wants it."""
    made: dict[str, Machine] = {}

    def get(kind: str) -> Machine:
        request.getfixturevalue("lab")
        if kind not in made:
            name = unique(kind.replace("-", ""))
            only = MINIMAL if kind.endswith("-min") else ()
            if kind.startswith("adb"):
                server: AdbServer = request.getfixturevalue("adb_server")
                made[kind] = make_phone(server, name, disk_mb=96, only=only)
            else:
                sftp = kind != "ssh-bare"
                made[kind] = make_board(name, disk_mb=96, only=only, sftp=sftp)
        return made[kind]

    yield get
    destroy(list(made.values()))


@pytest.fixture(params=KINDS)
def device(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lab_machine: Callable[[str], Machine],
) -> Iterator[ContractDevice]:
    """One device of each kind, with a fresh folder."""
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    kind: str = request.param
    if kind in HERE and kind.endswith("-min"):
        monkeypatch.setenv("PATH", str(_minimal_path(tmp_path)))
    made = _here(kind, tmp_path) if kind in HERE else _there(lab_machine(kind))
    yield made
    made.close()
    if kind in LAB:
        lab_machine(kind).unfill()


def _minimal_path(folder: Path) -> Path:
    """A folder with links to a device's few programs."""
    path = folder / "min"
    path.mkdir()
    for program in MINIMAL:
        (path / program).symlink_to(shutil.which(program) or program)
    return path


def _here(kind: str, tmp_path: Path) -> ContractDevice:
    folder = tmp_path / "device"
    folder.mkdir()
    return ContractDevice(
        DeviceEntry(kind, kind.removesuffix("-min")), str(folder), folder, lambda: "/dev/full"
    )


def _there(machine: Machine) -> ContractDevice:
    name = unique("test")
    base = "/data/local/tmp" if machine.entry.transport == "adb" else "/root"
    folder = f"{base}/{name}"
    host_folder = machine.host_path(folder)
    host_folder.mkdir()
    os.chmod(host_folder, 0o700)

    def full_place() -> str:
        machine.fill(leave_bytes=256 << 10)
        return f"{folder}/full"

    return ContractDevice(machine.entry, folder, host_folder, full_place)


@pytest.fixture
def bench(tmp_path: Path) -> SiteBench:
    """An agent with this machine as its device."""
    return SiteBench(tmp_path)
